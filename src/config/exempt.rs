//! `[exempt]`: what the configuration lists, and what the files list that it names.
//!
//! A file has one network, address or domain a line; `#` begins a comment, blank lines don't count. It is read whole, each
//! time that the configuration is. A line that can't be read spoils the configuration as any other mistake does: to
//! leave it out would let somebody be refused whom the operator exempted.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use compact_str::CompactString;
use ipnet::IpNet;

use crate::config::problem::Origin;
use crate::config::raw;
use crate::config::reader::Reader;
use crate::config::resolve::{network, pattern};
use crate::exempt::{self, Domains};
use crate::smtp::address::Mailbox;
use crate::smtp::pattern::DomainPattern;

const FILES: &str = "exempt.files";
/// Lines of a file of which each is told; of the others, how many there are.
const MOST_TOLD: usize = 10;
/// Some forty million lines; what is larger was not meant.
const MOST_OCTETS: u64 = 1 << 30;
/// As much of a line as is shown.
const MOST_SHOWN: usize = 80;
/// Some programs put it at the start of a text (U+FEFF).
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Everything that is listed.
pub(super) fn exemptions(raw: &raw::Exempt, reader: &mut Reader<'_>) -> exempt::Exemptions {
    let mut networks = reader.list("exempt.clients", &raw.clients, network).unwrap_or_default();
    let domains = reader.list("exempt.domains", &raw.domains, pattern).unwrap_or_default();
    let recipients = reader.list("exempt.recipients", &raw.recipients, recipient).unwrap_or_default();
    let mut domains: Domains = domains.into_iter().collect();
    let beside = reader.folder(FILES).to_owned();
    let paths = reader.list(FILES, &raw.files, |name| Ok(beside.join(name))).unwrap_or_default();
    for path in &paths {
        match read(path) {
            Ok(text) => take_in(path, &text, &mut networks, &mut domains, reader),
            Err(error) => reader.refuse(FILES, unreadable(path, &error)),
        }
    }
    domains.shrink();
    let networks = networks.into_iter().collect();
    exempt::Exemptions { clients: Arc::new(networks), domains: Arc::new(domains), recipients }
}

fn recipient(text: &str) -> Result<CompactString, String> {
    let read = if text.contains('@') {
        Mailbox::parse(text).map(|mailbox| CompactString::from(mailbox.to_string()))
    } else {
        Mailbox::parse(&format!("{text}@local")).map(|_| CompactString::from(text))
    };
    read.map_err(|_syntax| "is neither a local part such as \"postmaster\" nor an address".to_owned())
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Asked before it is opened: to open a named pipe would wait for who writes to it.
    let length = match path.metadata()? {
        about if !about.is_file() => return Err(io::Error::other("not a regular file")),
        about if about.len() > MOST_OCTETS => return Err(io::Error::other("larger than 1 GiB")),
        about => usize::try_from(about.len()).unwrap_or_default(),
    };
    let mut text = Vec::with_capacity(length + 1);
    File::open(path)?.take(MOST_OCTETS).read_to_end(&mut text)?;
    Ok(text)
}

fn unreadable(path: &Path, error: &io::Error) -> String {
    format!("{path:?} can't be read: {error}; allowed is a file with one network or domain a line")
}

/// Reads the lines of a file.
fn take_in(
    path: &Path,
    text: &[u8],
    networks: &mut Vec<IpNet>,
    domains: &mut Domains,
    reader: &mut Reader<'_>,
) {
    let mut bad = Bad { path, first_untold: None, count: 0 };
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let lines = memchr::memchr_iter(b'\n', text).count() + 1;
    networks.reserve(lines);
    domains.reserve(lines);
    for (line, octets) in (1..).zip(text.split(|octet| *octet == b'\n')) {
        let said = octets.split(|octet| *octet == b'#').next().unwrap_or_default();
        let item = said.trim_ascii();
        if item.is_empty() {
            continue;
        }
        match entry(item) {
            Ok(Entry::Network(network)) => networks.push(network),
            Ok(Entry::Domain(pattern)) => domains.insert(&pattern),
            Err(what) => {
                let blanks = said.len() - said.trim_ascii_start().len();
                bad.tell((line, blanks + 1), format!("\"{}\" {what}", shown(item)), reader);
            }
        }
    }
    bad.tell_how_many(reader);
}

enum Entry {
    Network(IpNet),
    Domain(DomainPattern),
}

fn entry(item: &[u8]) -> Result<Entry, String> {
    let text = std::str::from_utf8(item).map_err(|_not_text| "is not UTF-8".to_owned())?;
    // No top-level domain is a number, so that 192.0.2.300 isn't taken for a domain.
    let last = text.rsplit(['.', '/']).next().unwrap_or_default();
    if text.contains(':') || last.bytes().all(|octet| octet.is_ascii_digit()) && !last.is_empty() {
        return network(text).map(Entry::Network);
    }
    pattern(text).map(Entry::Domain).map_err(|_neither| {
        "is neither a network such as \"192.0.2.0/24\" nor a domain such as \"example.com\", or \".example.com\" with \
         sub-domains"
            .to_owned()
    })
}

/// Of binary files too, and not the whole of a line without an end.
fn shown(item: &[u8]) -> String {
    let (start, rest) = item.split_at(item.len().min(MOST_SHOWN));
    let start = String::from_utf8_lossy(start);
    format!("{}{}", start.escape_debug(), if rest.is_empty() { "" } else { "..." })
}

/// The lines of one file that can't be read.
struct Bad<'a> {
    path: &'a Path,
    first_untold: Option<(usize, usize)>,
    count: usize,
}

impl Bad<'_> {
    fn tell(&mut self, position: (usize, usize), what: String, reader: &mut Reader<'_>) {
        self.count += 1;
        if self.count <= MOST_TOLD {
            reader.refuse_at(self.origin(position), FILES, what);
        } else {
            self.first_untold.get_or_insert(position);
        }
    }

    fn tell_how_many(&self, reader: &mut Reader<'_>) {
        if let Some(position) = self.first_untold {
            let what = match self.count - MOST_TOLD {
                1 => "and this line".to_owned(),
                more => format!("and {more} more lines from here on"),
            };
            reader.refuse_at(self.origin(position), FILES, what);
        }
    }

    fn origin(&self, position: (usize, usize)) -> Origin {
        Origin::File { path: PathBuf::from(self.path), position: Some(position) }
    }
}
