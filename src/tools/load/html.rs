//! The report as one HTML page with tables and plots, light or dark as set in the system. It loads nothing from a network.

use std::fmt::Write as _;

use crate::tools::load::plot::{Axis, Plot, Scale, Series, escaped};
use crate::tools::load::report::{counted, delivery, pace, time, title, usage};
use crate::tools::load::summary::{Latency, SliceSummary, Summary};

const STYLE: &str = "\
:root{color-scheme:light dark;--text:#1b1f24;--back:#fff;--soft:#667;--grid:#d8dce2;--bad:#c0262d;--good:#1a7f37;\
--s1:#2a78d6;--s2:#d1495b;--s3:#d99a1c;--s4:#7b5ea7;--s5:#2b9b8f;--s6:#8a6d3b;--s7:#c65bb0;--s8:#5b7083}\
@media(prefers-color-scheme:dark){:root{--text:#e6e8eb;--back:#15181c;--soft:#98a0ab;--grid:#333a43;--bad:#ff7b72;--good:#56d364;\
--s1:#6cb0ff;--s2:#ff8394;--s3:#f0c04e;--s4:#b79cf0;--s5:#5fd3c5;--s6:#cfae74;--s7:#f39adf;--s8:#9fb3c8}}\
body{margin:2rem auto;max-width:60rem;padding:0 1rem;font:16px/1.5 system-ui,sans-serif;color:var(--text);background:var(--back)}\
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}.scroll{overflow-x:auto}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9rem}\
th,td{padding:.25rem .7rem;text-align:right;border-bottom:1px solid var(--grid);white-space:nowrap}\
th:first-child,td:first-child,th:nth-child(2),td:nth-child(2){text-align:left}\
.bad{color:var(--bad);font-weight:600}.good{color:var(--good);font-weight:600}\
figure{margin:2rem 0}figcaption{font-weight:600}svg{width:100%;height:auto}\
svg text{fill:var(--soft);font-size:12px}.grid{stroke:var(--grid)}.line{fill:none;stroke-width:2}.area{stroke:none;fill-opacity:.75}\
.legend{font-size:.85rem;color:var(--soft)}.key{margin-right:1rem}.key i{display:inline-block;width:.8em;height:.8em;margin-right:.35em}";

const COLOURS: usize = 8;

/// In octets.
const MIB: f64 = 1_048_576.0;

pub(super) fn page(summary: &Summary) -> String {
    let mut colours = String::new();
    for colour in 1..=COLOURS {
        let name = format!("var(--s{colour})");
        add(
            &mut colours,
            format_args!(
                ".line.s{colour}{{stroke:{name}}}.area.s{colour}{{fill:{name}}}.k{colour}{{background:{name}}}"
            ),
        );
    }
    let title = escaped(&title(summary));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>{title}</title>\n\
         <style>{STYLE}{colours}</style></head>\n<body>\n<h1>{title}</h1>\n"
    );
    page.push_str(&verdict(summary));
    let mut facts = vec![pace(summary)];
    facts.extend(summary.delivery.as_ref().map(delivery));
    facts.extend(summary.outcomes.as_ref().map(|outcomes| counted(&summary.total, outcomes)));
    facts.extend(summary.daemon.as_ref().map(usage));
    for fact in facts {
        add(&mut page, format_args!("<p>{}</p>\n", escaped(&fact)));
    }
    page.push_str(&classes(summary));
    for plot in plots(summary) {
        page.push_str(&plot.figure());
    }
    page.push_str(&replies(summary));
    page.push_str("</body></html>\n");
    page
}

fn add(page: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string can't fail.
    page.write_fmt(what).ok();
}

fn verdict(summary: &Summary) -> String {
    let mut text = String::new();
    if summary.interrupted {
        text.push_str("<p class=\"bad\">The run was interrupted; this is the result until then.</p>\n");
    }
    if summary.problems.is_empty() {
        text.push_str("<p class=\"good\">\u{2713} all as expected</p>\n");
    }
    for problem in &summary.problems {
        add(&mut text, format_args!("<p class=\"bad\">\u{2717} {}</p>\n", escaped(problem)));
    }
    text
}

fn classes(summary: &Summary) -> String {
    let mut text = "<h2>Expected and observed</h2>\n<div class=\"scroll\"><table><thead><tr>".to_owned();
    for name in [
        "class", "expected", "messages", "accepted", "rejected", "deferred", "failed", "wrong", "p50", "p99",
        "p99.9", "max",
    ] {
        add(&mut text, format_args!("<th>{name}</th>"));
    }
    text.push_str("</tr></thead><tbody>\n");
    for row in &summary.classes {
        let counts = &row.counts;
        let wrong = if row.wrong > 0 { " class=\"bad\"" } else { "" };
        add(
            &mut text,
            format_args!(
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td{wrong}>{}</td>{}</tr>\n",
                escaped(row.class),
                escaped(&row.expected),
                counts.total(),
                counts.accepted,
                counts.rejected,
                counts.deferred,
                counts.failed,
                row.wrong,
                times(row.latency),
            ),
        );
    }
    text.push_str("</tbody></table></div>\n");
    text
}

fn times(latency: Option<Latency>) -> String {
    let times = latency.map(|it| [it.p50, it.p99, it.p99_9, it.max].map(time));
    times.unwrap_or_default().map(|time| format!("<td>{}</td>", escaped(&time))).concat()
}

fn replies(summary: &Summary) -> String {
    let mut text =
        "<h2>Replies</h2>\n<div class=\"scroll\"><table><thead><tr><th>class</th><th>reply</th><th>messages</th></tr></thead><tbody>\n"
            .to_owned();
    let rows = summary.replies.iter().map(|reply| (reply.class, reply.reply.as_str(), reply.count));
    let failures = summary.failures.iter().map(|failure| ("", failure.failure.as_str(), failure.count));
    for (class, what, count) in rows.chain(failures) {
        add(
            &mut text,
            format_args!("<tr><td>{}</td><td>{}</td><td>{count}</td></tr>\n", escaped(class), escaped(what)),
        );
    }
    text.push_str("</tbody></table></div>\n");
    text
}

fn plots(summary: &Summary) -> Vec<Plot> {
    let mut plots = vec![distribution(summary), verdicts(summary), latencies(summary)];
    plots.extend(memory(summary));
    plots
}

fn distribution(summary: &Summary) -> Plot {
    let series = summary.classes.iter().enumerate().map(|(at, row)| Series {
        name: row.class.to_owned(),
        colour: at % COLOURS + 1,
        filled: false,
        points: row.distribution.iter().map(|(quantile, micros)| (*quantile, *micros as f64)).collect(),
    });
    Plot {
        title: "Latency by class".to_owned(),
        x: Axis {
            label: "percentage of messages with lower latency".to_owned(),
            scale: Scale::Quantile,
            write: percent,
        },
        y: Axis { label: "latency".to_owned(), scale: Scale::Logarithmic, write: duration },
        series: series.collect(),
    }
}

/// Messages per second, stacked by verdict, with a line for the wrong ones.
fn verdicts(summary: &Summary) -> Plot {
    let parts: [(&str, usize, fn(&SliceSummary) -> u64); 4] = [
        ("accepted", 5, |slice| slice.counts.accepted),
        ("rejected", 1, |slice| slice.counts.rejected),
        ("deferred", 3, |slice| slice.counts.deferred),
        ("failed", 4, |slice| slice.counts.failed),
    ];
    let slices = &summary.over_time;
    let mut sums = vec![0.0; slices.len()];
    let mut series = Vec::new();
    for (name, colour, of) in parts {
        for (sum, slice) in sums.iter_mut().zip(slices) {
            *sum += of(slice) as f64 / length(slice, summary.seconds);
        }
        let points = slices.iter().map(middle).zip(sums.iter().copied()).collect();
        series.push(Series { name: name.to_owned(), colour, filled: true, points });
    }
    let wrong = slices
        .iter()
        .map(|slice| (middle(slice), slice.counts.wrong() as f64 / length(slice, summary.seconds)));
    series.push(Series { name: "wrong".to_owned(), colour: 2, filled: false, points: wrong.collect() });
    Plot { title: "Verdicts over time".to_owned(), x: seconds_axis(), y: rate_axis(), series }
}

fn latencies(summary: &Summary) -> Plot {
    let parts: [(&str, usize, fn(&SliceSummary) -> Option<u64>); 3] =
        [("p50", 1, |slice| slice.p50), ("p99", 3, |slice| slice.p99), ("max", 2, |slice| slice.max)];
    let series = parts.map(|(name, colour, of)| Series {
        name: name.to_owned(),
        colour,
        filled: false,
        points: summary
            .over_time
            .iter()
            .filter_map(|slice| of(slice).map(|micros| (middle(slice), micros as f64)))
            .collect(),
    });
    Plot {
        title: "Latency over time".to_owned(),
        x: seconds_axis(),
        y: Axis { label: "latency".to_owned(), scale: Scale::Logarithmic, write: duration },
        series: series.into(),
    }
}

fn memory(summary: &Summary) -> Option<Plot> {
    summary.daemon.as_ref()?;
    let points =
        summary.over_time.iter().filter_map(|slice| Some((middle(slice), slice.memory? as f64 / MIB)));
    let series =
        Series { name: "resident memory".to_owned(), colour: 4, filled: false, points: points.collect() };
    Some(Plot {
        title: "Memory of the daemon".to_owned(),
        x: seconds_axis(),
        y: Axis { label: "MiB".to_owned(), scale: Scale::Linear, write: number },
        series: vec![series],
    })
}

fn middle(slice: &SliceSummary) -> f64 {
    slice.at + slice.seconds / 2.0
}

/// The last slice ends with the run.
fn length(slice: &SliceSummary, end: f64) -> f64 {
    slice.seconds.min(end - slice.at).max(slice.seconds / 10.0)
}

fn seconds_axis() -> Axis {
    Axis { label: "seconds".to_owned(), scale: Scale::Linear, write: number }
}

fn rate_axis() -> Axis {
    Axis { label: "messages per second".to_owned(), scale: Scale::Linear, write: number }
}

fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn percent(quantile: f64) -> String {
    let text = format!("{:.5}", quantile * 100.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `micros` is a power of ten: a mark on an axis.
fn duration(micros: f64) -> String {
    match micros {
        ..1e3 => format!("{} us", number(micros)),
        1e3..1e6 => format!("{} ms", number(micros / 1e3)),
        _ => format!("{} s", number(micros / 1e6)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::load::summary::tests::summary;

    #[test]
    fn the_page_loads_nothing_and_shows_the_problems() {
        let mut summary = summary();
        summary.problems = vec!["1 <script>alert(1)</script>".to_owned()];
        summary.replies[0].reply = "550 <b>".to_owned();
        let page = page(&summary);
        assert!(page.contains("&lt;script&gt;alert(1)") && page.contains("550 &lt;b&gt;"), "{page}");
        for outside in ["<script", "<link", "<img", "href=", "src=", "url(", "@import"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("prefers-color-scheme:dark"));
        for title in ["Latency by class", "Verdicts over time", "Latency over time", "Memory of the daemon"] {
            assert!(page.contains(&format!("<figcaption>{title}</figcaption>\n<svg")), "{title}");
        }
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        assert!(page.contains("spoofed") && !page.contains("all as expected"));
        summary.problems.clear();
        assert!(super::page(&summary).contains("all as expected"));
    }

    #[test]
    fn numbers_on_the_axes_are_short() {
        let times = [(10.0, "10 us"), (1000.0, "1 ms"), (100_000.0, "100 ms"), (1e7, "10 s")];
        times.iter().for_each(|(micros, text)| assert_eq!(duration(*micros), *text));
        assert_eq!([percent(0.9), percent(0.9999), percent(1.0)], ["90", "99.99", "100"]);
        assert_eq!([number(0.0), number(0.25), number(2500.0)], ["0", "0.25", "2500"]);
    }
}
