//! Options that make no sense at a door are errors, with the reason.

use crate::policy::door::DoorName;
use crate::tools::load::Args;
use crate::tools::load::class::Class;

/// # Errors
/// The option, and why it can't be met.
pub(super) fn check(args: &Args) -> Result<(), String> {
    if args.door == DoorName::Smtp {
        let is_path = args.target.as_ref().is_some_and(|target| target.starts_with("unix:"));
        return if is_path { Err(UNIX.to_owned()) } else { Ok(()) };
    }
    let door = args.door.name();
    for (given, option) in [(args.pipelining, "--pipelining"), (args.slow > 0, "--slow")] {
        if given {
            return Err(format!(
                "{option} is about clients of SMTP; with --door {door} a mail server stands between them and the gate"
            ));
        }
    }
    if args.door == DoorName::Milter {
        return Ok(());
    }
    if args.size.is_some() {
        return Err(
            "--size has no effect with --door policy: a policy service doesn't see messages".to_owned()
        );
    }
    let header = Class::BadFrom;
    let mix = args.mix.iter().flat_map(|mix| &mix.0).map(|(class, _)| ("--mix", *class));
    let domains = args.domain.iter().map(|given| ("--domain", given.class));
    let expected = args.expect.iter().map(|given| ("--expect", given.class));
    match mix.chain(domains).chain(expected).find(|(_, class)| *class == header) {
        None => Ok(()),
        Some((option, class)) => Err(format!(
            "{option}: the class {} needs the header, which a policy service doesn't see",
            class.name()
        )),
    }
}

/// A client at a unix socket has no address.
const UNIX: &str = "the SMTP door has no unix socket: give HOST:PORT, or --door milter or policy";
