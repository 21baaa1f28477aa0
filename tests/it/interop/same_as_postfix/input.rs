//! The table of inputs; its form stands at its top.

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/interop/same_as_postfix/inputs.table");

/// A message that nobody objects to.
const MESSAGE: &[u8] = b"From: a@good.test\r\nSubject: s\r\n\r\nx\r\n.\r\n";
const RCPT: &[u8] = b"RCPT TO:<user@relay.test>\r\n";
const MAIL: &[u8] = b"MAIL FROM:<a@good.test>\r\n";
const EHLO: &[u8] = b"EHLO mail.good.test\r\n";
const DATA: &[u8] = b"DATA\r\n";

/// One row.
#[derive(Debug, Clone)]
pub(super) struct Input {
    /// The row as it is written.
    pub(super) line: String,
    /// The first words of an item of the guide.
    pub(super) difference: Option<String>,
    /// Only clients that are not exempt see the difference.
    pub(super) not_exempt: bool,
    /// What is written at one time, and how many replies come to it.
    pub(super) steps: Vec<(Vec<u8>, usize)>,
    /// Follows a 354.
    pub(super) message: Vec<u8>,
}

/// All rows.
pub(super) fn table() -> Vec<Input> {
    let table = std::fs::read_to_string(TABLE).unwrap();
    table.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(row).collect()
}

fn row(line: &str) -> Input {
    let mut columns = line.splitn(3, " |");
    let mut column =
        || columns.next().unwrap_or_else(|| panic!("{line}: three columns")).trim_start_matches(' ');
    let (kind, difference) = (column(), column());
    let text =
        unescape(line.splitn(3, " |").nth(2).map_or("", |text| text.strip_prefix(' ').unwrap_or(text)));
    let not_exempt = difference.ends_with(" (not exempt)");
    let words = difference.trim_end_matches(" (not exempt)");
    let mut input = Input {
        line: line.chars().take(200).collect(),
        difference: (words != "-").then(|| words.to_owned()),
        not_exempt,
        steps: [EHLO, MAIL, RCPT, DATA].map(|step| (step.to_vec(), 1)).to_vec(),
        message: MESSAGE.to_vec(),
    };
    let end = b"\r\n.\r\n".as_slice();
    match kind {
        "helo" => input.steps[0].0 = [&text, b"\r\n".as_slice()].concat(),
        "mail" => input.steps[1].0 = [b"MAIL FROM:", text.as_slice(), b"\r\n"].concat(),
        "rcpt" => input.steps[2].0 = [b"RCPT TO:", text.as_slice(), b"\r\n"].concat(),
        "order" => input.steps = commands(&text).map(with_replies).collect(),
        "pipe" => {
            input.steps.truncate(1);
            input.steps.push(with_replies(commands(&text).collect::<Vec<_>>().concat()));
        }
        "data" => input.message = [text.as_slice(), end].concat(),
        "head" => input.message = [text.as_slice(), b"\r\nx", end].concat(),
        "bdat" => {
            input.steps[3].0 = [format!("BDAT {} LAST\r\n", text.len()).as_bytes(), &text].concat();
        }
        _ => panic!("{line}: no such kind"),
    }
    input
}

/// One reply for each line.
fn with_replies(commands: Vec<u8>) -> (Vec<u8>, usize) {
    let count = commands.iter().filter(|octet| **octet == b'\n').count();
    (commands, count)
}

fn commands(text: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    // one octet, one character
    let text: String = text.iter().map(|octet| char::from(*octet)).collect();
    let commands: Vec<String> = text.split(" ;; ").map(|command| format!("{command}\r\n")).collect();
    commands
        .into_iter()
        .map(|command| command.chars().map(|it| u8::try_from(u32::from(it)).unwrap()).collect())
}

/// `\r \n \t \0 \\ \xNN {TEXT*N}`
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (piece, length): (Vec<u8>, usize) = match (first, rest.chars().nth(1)) {
            ('{', _) => {
                let (inner, times) = inner_of(rest);
                let whole = inner.len() + times.len() + 3;
                (unescape(inner).repeat(times.parse().unwrap()), whole)
            }
            ('\\', Some('x')) => (vec![u8::from_str_radix(rest.get(2..4).unwrap(), 16).unwrap()], 4),
            ('\\', Some('r')) => (b"\r".to_vec(), 2),
            ('\\', Some('n')) => (b"\n".to_vec(), 2),
            ('\\', Some('t')) => (b"\t".to_vec(), 2),
            ('\\', Some('0')) => (b"\0".to_vec(), 2),
            ('\\', Some('\\')) => (b"\\".to_vec(), 2),
            ('\\', other) => panic!("{text}: \\{other:?}"),
            (other, _) => (other.to_string().into_bytes(), other.len_utf8()),
        };
        out.extend(piece);
        rest = rest.get(length..).unwrap();
    }
    out
}

/// `{TEXT*N}` at the start, as TEXT and N.
fn inner_of(text: &str) -> (&str, &str) {
    let inner = text.strip_prefix('{').and_then(|rest| rest.split_once('}')).map(|(inner, _)| inner);
    inner.and_then(|inner| inner.rsplit_once('*')).unwrap_or_else(|| panic!("{text}: {{TEXT*N}}"))
}
