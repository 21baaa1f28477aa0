//! Line and area plots as SVG text: axes with round numbers, one path for each series.
//!
//! No scripts and no external resources. Colours are CSS classes (`s1`, `s2`, ...) of the page; all text is escaped.

use std::fmt::Write as _;

/// In the units of the viewBox.
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 44.0;

/// Approximate number of marks of an axis.
const MARKS: f64 = 6.0;

pub(super) struct Plot {
    pub(super) title: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) series: Vec<Series>,
}

pub(super) struct Axis {
    pub(super) label: String,
    pub(super) scale: Scale,
    pub(super) write: fn(f64) -> String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scale {
    /// Starts at zero.
    Linear,
    /// By powers of ten; values that aren't above zero are drawn at the lower end.
    Logarithmic,
    /// Quantiles from 0 to 1, with the same width for 99 to 99.9 % as for 90 to 99 %.
    Quantile,
}

pub(super) struct Series {
    pub(super) name: String,
    /// From 1.
    pub(super) colour: usize,
    /// Filled down to the previous series; the caller stacks the values.
    pub(super) filled: bool,
    pub(super) points: Vec<(f64, f64)>,
}

/// Escapes text for HTML and SVG, including attributes.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

impl Plot {
    /// A figure with its legend, or the text "no data".
    pub(super) fn figure(&self) -> String {
        let title = escaped(&self.title);
        if self.series.iter().all(|series| series.points.is_empty()) {
            return format!("<figure><figcaption>{title}</figcaption><p>no data</p></figure>\n");
        }
        let x = Range::of(self.x.scale, self.values(|point| point.0));
        let y = Range::of(self.y.scale, self.values(|point| point.1));
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\" xmlns=\"http://www.w3.org/2000/svg\">\n"
        );
        self.marks(&x, &y, &mut svg);
        let mut floor: Vec<(f64, f64)> = Vec::new();
        for series in &self.series {
            let points: Vec<_> = series.points.iter().map(|(px, py)| (x.across(*px), y.up(*py))).collect();
            let class = if series.filled { "area" } else { "line" };
            let d = if series.filled { area(&points, &floor) } else { path(&points, 'M') };
            add(&mut svg, format_args!("<path class=\"{class} s{}\" d=\"{d}\"/>\n", series.colour));
            floor = points;
        }
        svg.push_str("</svg>");
        let keys = self.series.iter().map(|series| {
            format!(
                "<span class=\"key\"><i class=\"k{}\"></i>{}</span>",
                series.colour,
                escaped(&series.name)
            )
        });
        let legend = keys.collect::<Vec<_>>().join(" ");
        format!(
            "<figure><figcaption>{title}</figcaption>\n{svg}\n<div class=\"legend\">{legend}</div></figure>\n"
        )
    }

    fn values(&self, of: impl Fn(&(f64, f64)) -> f64) -> Vec<f64> {
        self.series.iter().flat_map(|series| series.points.iter().map(&of)).collect()
    }

    /// Grid, numbers and labels.
    fn marks(&self, x: &Range, y: &Range, svg: &mut String) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for value in y.marks() {
            let (at, text) = (y.up(value), escaped(&(self.y.write)(value)));
            add(
                svg,
                format_args!(
                    "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                     <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>\n",
                    LEFT - 6.0,
                    at + 4.0,
                ),
            );
        }
        for value in x.marks() {
            let (at, text) = (x.across(value), escaped(&(self.x.write)(value)));
            add(
                svg,
                format_args!(
                    "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\
                     <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>\n",
                    bottom + 16.0,
                ),
            );
        }
        let middle = (LEFT + right) / 2.0;
        let (x_label, y_label) = (escaped(&self.x.label), escaped(&self.y.label));
        let half = (TOP + bottom) / 2.0;
        add(
            svg,
            format_args!(
                "<text class=\"label\" x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{x_label}</text>\
                 <text class=\"label\" transform=\"translate(14 {half:.1}) rotate(-90)\" text-anchor=\"middle\">{y_label}</text>\n",
                HEIGHT - 8.0,
            ),
        );
    }
}

fn add(svg: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string can't fail.
    svg.write_fmt(what).ok();
}

fn path(points: &[(f64, f64)], first: char) -> String {
    let mut d = String::new();
    for (at, (x, y)) in points.iter().enumerate() {
        add(&mut d, format_args!("{}{x:.1} {y:.1}", if at == 0 { first } else { 'L' }));
    }
    d
}

/// The area between a line and the line below it, or the bottom.
fn area(points: &[(f64, f64)], floor: &[(f64, f64)]) -> String {
    let mut back: Vec<_> = if floor.len() == points.len() {
        floor.to_vec()
    } else {
        points.iter().map(|(x, _)| (*x, HEIGHT - BOTTOM)).collect()
    };
    back.reverse();
    format!("{}{}Z", path(points, 'M'), path(&back, 'L'))
}

struct Range {
    scale: Scale,
    low: f64,
    high: f64,
    /// Between two marks, on a linear scale.
    step: f64,
}

impl Range {
    fn of(scale: Scale, values: Vec<f64>) -> Self {
        let most = values.iter().copied().fold(0.0, f64::max);
        match scale {
            Scale::Linear => {
                let step = round_step(most);
                let high = ((most / step).ceil() * step).max(step);
                Self { scale, low: 0.0, high, step }
            }
            Scale::Logarithmic => {
                let least = values.into_iter().filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
                let low = if least.is_finite() { least.log10().floor() } else { 0.0 };
                let high = if most > 0.0 { most.log10().ceil() } else { 1.0 };
                Self { scale, low, high: high.max(low + 1.0), step: 1.0 }
            }
            Scale::Quantile => {
                let nines = values.into_iter().filter(|value| *value < 1.0).map(nines).fold(1.0, f64::max);
                // The maximum is at the right end, one step after the last quantile.
                Self { scale, low: 0.0, high: (nines - 1e-6).ceil() + 1.0, step: 1.0 }
            }
        }
    }

    fn marks(&self) -> Vec<f64> {
        let mut marks = Vec::new();
        let mut at = self.low;
        // Sums of steps have rounding errors.
        while at <= self.high + self.step / 1000.0 && marks.len() < 40 {
            marks.push(match self.scale {
                Scale::Linear => at,
                Scale::Logarithmic => 10_f64.powf(at),
                Scale::Quantile if at > self.high - 0.5 => 1.0,
                Scale::Quantile => 1.0 - 10_f64.powf(-at),
            });
            at += self.step;
        }
        marks
    }

    /// From 0 to 1 along the axis.
    fn share(&self, value: f64) -> f64 {
        let at = match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic if value > 0.0 => value.log10(),
            Scale::Logarithmic => self.low,
            Scale::Quantile if value >= 1.0 => self.high,
            Scale::Quantile => nines(value),
        };
        ((at - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    fn across(&self, value: f64) -> f64 {
        LEFT + self.share(value) * (WIDTH - LEFT - RIGHT)
    }

    fn up(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.share(value) * (HEIGHT - TOP - BOTTOM)
    }
}

/// 0.9 is 1, 0.99 is 2, and so on.
fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile).max(1e-9).log10()
}

/// 1, 2 or 5 times a power of ten.
fn round_step(most: f64) -> f64 {
    if most <= 0.0 || !most.is_finite() {
        return 1.0;
    }
    let rough = most / MARKS;
    let power = 10_f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= rough);
    factor.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(series: Vec<Series>) -> String {
        let axis =
            |label: &str, scale| Axis { label: label.to_owned(), scale, write: |value| format!("{value}") };
        let (x, y) = (axis("x < y", Scale::Linear), axis("a & b", Scale::Logarithmic));
        Plot { title: "\"<script>\"".to_owned(), x, y, series }.figure()
    }

    fn series(name: &str, filled: bool, points: &[(f64, f64)]) -> Series {
        Series { name: name.to_owned(), colour: 1, filled, points: points.to_vec() }
    }

    #[test]
    fn every_text_is_escaped() {
        let figure = plot(vec![series("<b onclick='x'>&", false, &[(0.0, 1.0), (1.0, 2.0)])]);
        assert!(figure.contains("&lt;b onclick=&#39;x&#39;&gt;&amp;"), "{figure}");
        assert!(figure.contains("aria-label=\"&quot;&lt;script&gt;&quot;\""), "{figure}");
        assert!(figure.contains("x &lt; y") && figure.contains("a &amp; b"), "{figure}");
        assert!(!figure.contains("<script") && !figure.contains("<b "), "{figure}");
        assert_eq!(escaped("a\r\n\0"), "a\u{fffd}\u{fffd}\u{fffd}");
    }

    #[test]
    fn all_points_are_inside_the_drawing_whatever_the_values() {
        let rows: [&[(f64, f64)]; 6] = [
            &[(0.0, 0.0)],
            &[(0.0, 0.0), (1.0, 0.0)],
            &[(0.0, 1e-9), (1e9, 1e12)],
            &[(5.0, 5.0), (5.0, 5.0)],
            &[(-1.0, -1.0), (2.0, 3.0)],
            &[(0.3, 999.0), (0.7, 1000.0), (0.9, 1001.0)],
        ];
        for points in rows {
            for filled in [false, true] {
                let figure = plot(vec![series("s", filled, points)]);
                assert!(!figure.contains("NaN") && !figure.contains("inf"), "{figure}");
                let d = figure.split(" d=\"").nth(1).unwrap().split('"').next().unwrap();
                let numbers = d.split(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '-'));
                let numbers: Vec<f64> = numbers.filter_map(|number| number.parse().ok()).collect();
                assert!(numbers.len() >= 2 * points.len());
                assert!(numbers.chunks(2).all(|at| {
                    (LEFT..=WIDTH - RIGHT).contains(&at[0]) && (TOP..=HEIGHT - BOTTOM).contains(&at[1])
                }));
            }
        }
        assert!(plot(Vec::new()).contains("no data"));
    }

    #[test]
    fn marks_are_round_and_cover_the_values() {
        for (most, expected) in [(0.0, 1.0), (1.0, 0.2), (7.0, 2.0), (60.0, 10.0), (12_345.0, 5000.0)] {
            assert!((round_step(most) - expected).abs() < 1e-9, "{most}");
        }
        let linear = Range::of(Scale::Linear, vec![3.0, 61.0]).marks();
        assert_eq!(linear, [0.0, 20.0, 40.0, 60.0, 80.0]);
        let logarithmic = Range::of(Scale::Logarithmic, vec![0.0, 30.0, 4000.0]).marks();
        assert_eq!(
            logarithmic.iter().map(|mark| mark.round()).collect::<Vec<_>>(),
            [10.0, 100.0, 1000.0, 10_000.0]
        );
        let quantiles = Range::of(Scale::Quantile, vec![0.0, 0.5, 0.9995, 1.0]);
        let marks: Vec<_> = quantiles.marks().iter().map(|mark| format!("{mark:.4}")).collect();
        assert_eq!(marks, ["0.0000", "0.9000", "0.9900", "0.9990", "0.9999", "1.0000"]);
    }
}
