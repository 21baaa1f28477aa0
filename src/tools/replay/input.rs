//! The lines of the logs: files one after the other, plain or gzip (recognised by their first octets, not by their names), or
//! standard input. At most [`LONGEST`] octets of a line are kept, so that a line of any length is allowed.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

/// In octets; Postfix cuts its lines at about 2000 (syslog).
const LONGEST: usize = 16 * 1024;
const BUFFER: usize = 128 * 1024;

pub(super) struct Input {
    name: String,
    reader: Box<dyn BufRead + Send>,
    line: Vec<u8>,
}

pub(super) enum Piece<'a> {
    Line(&'a [u8]),
    /// The beginning of a longer line.
    TooLong(&'a [u8]),
}

/// Octets read from the files, and their total size; 0 if it is unknown.
#[derive(Debug, Clone, Default)]
pub(super) struct Octets {
    pub(super) read: Arc<AtomicU64>,
    pub(super) all: u64,
}

/// Opens all logs before any is read.
pub(super) fn open(paths: &[PathBuf]) -> Result<(Vec<Input>, Octets), String> {
    let mut octets = Octets::default();
    let (mut inputs, mut sizes) = (Vec::new(), Some(0));
    for path in paths {
        let (name, size, source) = source(path)?;
        sizes = sizes.zip(size).map(|(all, size): (u64, u64)| all.saturating_add(size));
        let source = Counted { source, read: Arc::clone(&octets.read) };
        let reader = decompressed(source).map_err(|error| format!("{name}: {error}"))?;
        inputs.push(Input { name, reader, line: Vec::new() });
    }
    octets.all = sizes.unwrap_or(0);
    Ok((inputs, octets))
}

type Source = (String, Option<u64>, Box<dyn Read + Send>);

fn source(path: &Path) -> Result<Source, String> {
    if path.as_os_str() == "-" {
        return Ok(("standard input".to_owned(), None, Box::new(io::stdin())));
    }
    let name = path.display().to_string();
    let opened = File::open(path).and_then(|file| file.metadata().map(|metadata| (file, metadata)));
    let (file, metadata) = opened.map_err(|error| format!("{name}: {error}"))?;
    if metadata.is_dir() {
        return Err(format!("{name}: is a directory"));
    }
    Ok((name, metadata.is_file().then_some(metadata.len()), Box::new(file)))
}

fn decompressed(source: Counted) -> Result<Box<dyn BufRead + Send>, String> {
    const OTHERS: [(&[u8], &str, &str); 3] = [
        (b"\xfd7zXZ\0", "xz", "xzcat"),
        (b"BZh", "bzip2", "bzcat"),
        (b"\x28\xb5\x2f\xfd", "zstd", "zstdcat"),
    ];
    let mut reader = BufReader::with_capacity(BUFFER, source);
    let start = reader.fill_buf().map_err(|error| error.to_string())?;
    if start.starts_with(b"\x1f\x8b") {
        return Ok(Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(reader))));
    }
    if let Some((_, format, tool)) = OTHERS.iter().find(|(magic, ..)| start.starts_with(magic)) {
        return Err(format!(
            "is compressed with {format}, which rmxd doesn't read; use {tool} FILE | rmxd replay -"
        ));
    }
    Ok(Box::new(reader))
}

/// Counts the octets of the file, compressed or not, for the progress bar.
struct Counted {
    source: Box<dyn Read + Send>,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.read.fetch_add(u64::try_from(read).unwrap_or(0), Ordering::Relaxed);
        Ok(read)
    }
}

impl Input {
    /// The next line without its LF; `None` at the end.
    ///
    /// # Errors
    /// The file can't be read, or a gzip file is damaged or truncated; with the name of the file.
    pub(super) fn next(&mut self) -> Result<Option<Piece<'_>>, String> {
        self.line.clear();
        let (mut any, mut too_long) = (false, false);
        loop {
            let buffer = match self.reader.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(format!("{}: {}", self.name, explained(&error))),
            };
            if buffer.is_empty() {
                break;
            }
            any = true;
            let end = memchr::memchr(b'\n', buffer);
            let (part, _) = buffer.split_at_checked(end.unwrap_or(buffer.len())).unwrap_or((buffer, &[]));
            let room = LONGEST - self.line.len();
            too_long |= part.len() > room;
            self.line.extend_from_slice(part.get(..room).unwrap_or(part));
            let used = part.len() + usize::from(end.is_some());
            self.reader.consume(used);
            if end.is_some() {
                break;
            }
        }
        if !any {
            return Ok(None);
        }
        let line = self.line.as_slice();
        Ok(Some(if too_long { Piece::TooLong(line) } else { Piece::Line(line) }))
    }

    /// The path as given.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

fn explained(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            "the gzip file ends too early; the lines before that were read".to_owned()
        }
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
            format!("the gzip file is damaged ({error}); the lines before that were read")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    /// The lines of a file with this content, and the error at its end.
    fn lines(content: &[u8]) -> (Vec<String>, Option<String>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        let (mut inputs, octets) = match open(&[file.path().to_owned()]) {
            Ok(opened) => opened,
            Err(error) => return (Vec::new(), Some(error)),
        };
        let mut lines = Vec::new();
        let error = loop {
            match inputs[0].next() {
                Ok(Some(Piece::Line(line))) => lines.push(String::from_utf8_lossy(line).into_owned()),
                Ok(Some(Piece::TooLong(line))) => lines.push(format!("too long: {}", line.len())),
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        assert_eq!(octets.all, u64::try_from(content.len()).unwrap());
        assert!(error.is_some() || octets.read.load(Ordering::Relaxed) == octets.all);
        (lines, error)
    }

    #[test]
    fn plain_and_gzip_logs_give_the_same_lines() {
        let text = b"one\ntwo\r\n\nthree";
        for content in [text.to_vec(), gzip(text), [gzip(b"one\ntwo\r"), gzip(b"\n\nthree")].concat()] {
            assert_eq!(lines(&content), (["one", "two\r", "", "three"].map(str::to_owned).to_vec(), None));
        }
        assert_eq!(lines(b""), (vec![], None));
        assert_eq!(lines(&gzip(b"")), (vec![], None));
    }

    #[test]
    fn a_line_of_any_length_takes_bounded_memory() {
        let content = [b"a\n".to_vec(), vec![b'x'; 3_000_000], b"\nb\n".to_vec()].concat();
        let expected = ["a".to_owned(), format!("too long: {LONGEST}"), "b".to_owned()];
        assert_eq!(lines(&content).0, expected);
        assert_eq!(lines(&gzip(&content)).0, expected);
        assert_eq!(lines(&vec![b'x'; LONGEST]).0[0].len(), LONGEST);
    }

    #[test]
    fn a_truncated_or_damaged_gzip_log_gives_its_lines_and_an_error() {
        let text: String =
            (0..50_000u32).map(|n| format!("line {n} {}\n", n.wrapping_mul(2_654_435_761))).collect();
        let whole = gzip(text.as_bytes());
        let (found, error) = lines(&whole[..whole.len() / 2]);
        assert!(found.len() > 1_000 && text.starts_with(&found.join("\n")), "{}", found.len());
        assert!(error.unwrap().contains("ends too early"));
        let mut damaged = whole.clone();
        damaged[whole.len() - 6] ^= 1;
        let (_, error) = lines(&damaged);
        assert!(error.unwrap().contains("damaged"));
    }

    #[test]
    fn other_compression_formats_are_errors_with_the_program_to_use() {
        for (content, tool) in
            [(&b"\xfd7zXZ\0\0\0"[..], "xzcat"), (b"BZh91AY", "bzcat"), (b"\x28\xb5\x2f\xfd\0", "zstdcat")]
        {
            assert!(lines(content).1.unwrap().contains(&format!("{tool} FILE | rmxd replay -")));
        }
    }
}
