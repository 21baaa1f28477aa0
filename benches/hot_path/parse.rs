//! From octets to commands, messages and headers.

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use rmxd::dkim::{Signatures, are_aligned};
use rmxd::message::header;
use rmxd::smtp::address::DomainName;
use rmxd::smtp::command::Command;
use rmxd::smtp::framing::{BareNewline, CommandReader, DataEvent, DataReader};
use rmxd::smtp::reply::{Enhanced, Reply};

const COMMANDS: [&str; 5] = [
    "EHLO client.example.test",
    "MAIL FROM:<newsletter@news.example.test> SIZE=4096 BODY=8BITMIME",
    "RCPT TO:<somebody@here.example.test>",
    "DATA",
    "QUIT",
];

#[divan::bench(args = COMMANDS)]
fn command(bencher: Bencher<'_, '_>, line: &str) {
    bencher.counter(ItemsCount::new(1_u32)).bench(|| Command::parse(black_box(line.as_bytes())));
}

#[divan::bench]
fn command_line(bencher: Bencher<'_, '_>) {
    let buffer = b"MAIL FROM:<newsletter@news.example.test> SIZE=4096 BODY=8BITMIME\r\n";
    bencher
        .counter(BytesCount::of_slice(buffer))
        .bench_local(|| CommandReader::new(2048, BareNewline::Reject).next(black_box(buffer)));
}

/// A megabyte in lines of this length; dots at every 16th line's start.
#[divan::bench(args = [20, 76, 990])]
fn framing(bencher: Bencher<'_, '_>, line: usize) {
    let mut message = Vec::new();
    for at in 0_u32.. {
        if message.len() >= 1 << 20 {
            break;
        }
        message.extend_from_slice(if at % 16 == 0 { b".." } else { b"  " });
        message.resize(message.len() + line - 2, b'x');
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(b".\r\n");
    bencher.counter(BytesCount::of_slice(&message)).bench(|| {
        let mut reader = DataReader::new(BareNewline::Reject);
        let mut rest = black_box(message.as_slice());
        let mut content = 0;
        loop {
            let step = reader.next(rest);
            content += step.content;
            rest = rest.get(step.consumed..).unwrap_or_default();
            if !matches!(step.event, DataEvent::Again) {
                assert!(step.event == DataEvent::End, "{:?}", step.event);
                return content;
            }
        }
    });
}

/// A header as a mailing provider sends it; 12 KiB of it where there are many fields.
#[divan::bench(args = [1, 50])]
fn header_block(bencher: Bencher<'_, '_>, traces: usize) {
    let mut block = String::new();
    for _ in 0..traces {
        block.push_str(
            "Received: from out-7.example.test (out-7.example.test [192.0.2.7])\r\n\tby mx.here.test with ESMTPS \
             id 4RmxdBench1234\r\n\tfor <somebody@here.test>; Mon, 23 Nov 2026 10:00:00 +0000\r\n\
             X-Mailer-Campaign: 0123456789abcdef0123456789abcdef0123456789abcdef\r\n",
        );
    }
    block.push_str(
        "From: =?UTF-8?Q?The_Newsletter?= <news@news.example.test>\r\nReply-To: \"Answers, please\" \
         <answers@example.test>\r\nTo: <somebody@here.test>\r\nSubject: what is new\r\nMessage-ID: \
         <1234@news.example.test>\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\n",
    );
    bencher.counter(BytesCount::of_str(&block)).bench(|| header::read(black_box(block.as_bytes())));
}

#[divan::bench]
fn reply_in_wire_form(bencher: Bencher<'_, '_>) {
    let reply =
        Reply::new(550, Enhanced(5, 1, 8), "<u@spoof.test>: domain spoof.test does not exist (id 1ENJ55DW)");
    let mut out = Vec::with_capacity(512);
    bencher.bench_local(|| {
        out.clear();
        black_box(&reply).write_to(&mut out);
    });
}

/// A megabyte of a body as a DKIM signature of this form needs it, in pieces as they come from the socket.
#[divan::bench(args = ["simple", "relaxed"])]
fn body_hash(bencher: Bencher<'_, '_>, form: &str) {
    let author = DomainName::parse("news.example.test").expect("a name");
    let block = format!(
        "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/{form}; d=example.test; s=s; h=from; bh=AAAA; b=AAAA\r\n"
    );
    let signatures =
        Signatures::read(block.as_bytes(), 0, |signer| are_aligned(signer, &author)).expect("a signature");
    let line = b"The quick brown fox jumps over the lazy dog; and it does so for all of a line\r\n";
    let body = line.repeat((1 << 20) / line.len());
    bencher.counter(BytesCount::of_slice(&body)).bench(|| {
        let mut hasher = signatures.body_hasher();
        for piece in black_box(&body).chunks(16 * 1024) {
            hasher.push(piece);
        }
        hasher.finish()
    });
}
