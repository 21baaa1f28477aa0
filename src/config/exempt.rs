//! `[exempt]`: the entries in the configuration and in the files that it names.
//!
//! A file has one network, address or domain per line; `#` begins a comment, blank lines don't count. It is read whole, each
//! time that the configuration is read. A line that can't be read makes the configuration invalid, like any other
//! mistake: without that line, a sender that the operator exempted would be refused.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::problem::Origin;
use crate::config::raw;
use crate::config::reader::Reader;
use crate::exempt::entry::{network, pattern, recipient};
use crate::exempt::{self, Domains};
use crate::smtp::pattern::DomainPattern;

const FILES: &str = "exempt.files";
/// Bad lines of a file that are reported one by one; the others are only counted.
const MAX_REPORTED: usize = 10;
/// Some forty million lines; a larger file is a mistake.
const MAX_FILE: u64 = 1 << 30;
/// Octets of a bad line that a report quotes.
const MAX_QUOTED: usize = 80;
/// Some programs put U+FEFF at the start of a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

pub(super) fn exemptions(raw: &raw::Exempt, reader: &mut Reader<'_>) -> exempt::Exemptions {
    let mut networks = reader.list("exempt.clients", &raw.clients, network).unwrap_or_default();
    let domains = reader.list("exempt.domains", &raw.domains, pattern).unwrap_or_default();
    let recipients = reader.list("exempt.recipients", &raw.recipients, recipient).unwrap_or_default();
    let mut domains: Domains = domains.into_iter().collect();
    let folder = reader.folder(FILES).to_owned();
    let paths = reader.list(FILES, &raw.files, |name| Ok(folder.join(name))).unwrap_or_default();
    for path in &paths {
        match read(path) {
            Ok(text) => add_lines(path, &text, &mut networks, &mut domains, reader),
            Err(error) => reader.refuse(FILES, unreadable(path, &error)),
        }
    }
    domains.shrink();
    let networks = networks.into_iter().collect();
    exempt::Exemptions { clients: Arc::new(networks), domains: Arc::new(domains), recipients }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // The type is checked before the file is opened: opening a named pipe would wait for its writer.
    let length = match path.metadata()? {
        about if !about.is_file() => return Err(io::Error::other("not a regular file")),
        about if about.len() > MAX_FILE => return Err(io::Error::other("larger than 1 GiB")),
        about => usize::try_from(about.len()).unwrap_or_default(),
    };
    let mut text = Vec::with_capacity(length + 1);
    File::open(path)?.take(MAX_FILE).read_to_end(&mut text)?;
    Ok(text)
}

fn unreadable(path: &Path, error: &io::Error) -> String {
    format!("{path:?} can't be read: {error}; allowed is a file with one network or domain per line")
}

fn add_lines(
    path: &Path,
    text: &[u8],
    networks: &mut Vec<IpNet>,
    domains: &mut Domains,
    reader: &mut Reader<'_>,
) {
    let mut bad_lines = BadLines { path, first_unreported: None, count: 0 };
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let lines = memchr::memchr_iter(b'\n', text).count() + 1;
    networks.reserve(lines);
    domains.reserve(lines);
    for (line, octets) in (1..).zip(text.split(|octet| *octet == b'\n')) {
        let content = octets.split(|octet| *octet == b'#').next().unwrap_or_default();
        let item = content.trim_ascii();
        if item.is_empty() {
            continue;
        }
        match entry(item) {
            Ok(Entry::Network(network)) => networks.push(network),
            Ok(Entry::Domain(pattern)) => domains.insert(&pattern),
            Err(what) => {
                let blanks = content.len() - content.trim_ascii_start().len();
                bad_lines.report((line, blanks + 1), format!("\"{}\" {what}", quoted(item)), reader);
            }
        }
    }
    bad_lines.report_rest(reader);
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

/// Printable even for a binary file, and only the start of a long line.
fn quoted(item: &[u8]) -> String {
    let (start, rest) = item.split_at(item.len().min(MAX_QUOTED));
    let start = String::from_utf8_lossy(start);
    format!("{}{}", start.escape_debug(), if rest.is_empty() { "" } else { "..." })
}

/// The lines of one file that can't be read.
struct BadLines<'a> {
    path: &'a Path,
    first_unreported: Option<(usize, usize)>,
    count: usize,
}

impl BadLines<'_> {
    fn report(&mut self, position: (usize, usize), what: String, reader: &mut Reader<'_>) {
        self.count += 1;
        if self.count <= MAX_REPORTED {
            reader.refuse_at(self.origin(position), FILES, what);
        } else {
            self.first_unreported.get_or_insert(position);
        }
    }

    fn report_rest(&self, reader: &mut Reader<'_>) {
        if let Some(position) = self.first_unreported {
            let what = match self.count - MAX_REPORTED {
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
