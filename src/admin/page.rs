//! `/`: the dashboard. Its files are compiled into the program, so that it needs neither a folder nor another host.
//!
//! The page needs no token: it contains no data of the daemon and gets all data from the API.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use crate::admin::call::{Call, ResponseFuture};
use crate::admin::problem::Problem;
use crate::admin::query::quoted;

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const PICTURE: &str = "image/svg+xml";

const INDEX: &str = include_str!("page/index.html");

/// Below `/ui/`: name, media type, content.
const FILES: &[(&str, &str, &str)] = &[
    ("api.js", SCRIPT, include_str!("page/api.js")),
    ("app.js", SCRIPT, include_str!("page/app.js")),
    ("audit.js", SCRIPT, include_str!("page/audit.js")),
    ("check.js", SCRIPT, include_str!("page/check.js")),
    ("decisions.js", SCRIPT, include_str!("page/decisions.js")),
    ("detail.js", SCRIPT, include_str!("page/detail.js")),
    ("dom.js", SCRIPT, include_str!("page/dom.js")),
    ("filters.js", SCRIPT, include_str!("page/filters.js")),
    ("find.js", SCRIPT, include_str!("page/find.js")),
    ("gates.js", SCRIPT, include_str!("page/gates.js")),
    ("icon.svg", PICTURE, include_str!("page/icon.svg")),
    ("now.js", SCRIPT, include_str!("page/now.js")),
    ("permits.js", SCRIPT, include_str!("page/permits.js")),
    ("plot.js", SCRIPT, include_str!("page/plot.js")),
    ("record.js", SCRIPT, include_str!("page/record.js")),
    ("rows.js", SCRIPT, include_str!("page/rows.js")),
    ("style.css", STYLE, include_str!("page/style.css")),
    ("times.js", SCRIPT, include_str!("page/times.js")),
    ("tops.js", SCRIPT, include_str!("page/tops.js")),
    ("whatif.js", SCRIPT, include_str!("page/whatif.js")),
    ("words.js", SCRIPT, include_str!("page/words.js")),
    ("would.js", SCRIPT, include_str!("page/would.js")),
];

/// `/`.
pub(super) fn index(_call: Call) -> ResponseFuture {
    Box::pin(async { Ok(asset(HTML, INDEX)) })
}

/// `/ui/NAME`.
pub(super) fn file(call: Call) -> ResponseFuture {
    Box::pin(async move {
        let file = FILES.iter().find(|(name, ..)| *name == call.argument);
        let file = file.map(|(_, kind, content)| asset(kind, content));
        file.ok_or_else(|| Problem::not_found(format!("the page has no file {}", quoted(&call.argument))))
    })
}

/// `no-cache`: after an upgrade of the daemon a browser must not mix files of two versions.
fn asset(kind: &'static str, content: &'static str) -> Response {
    ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache")], content).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::policy::identity::Identity;
    use crate::policy::reason::Reason;

    fn file(name: &str) -> &'static str {
        FILES.iter().find(|(known, ..)| *known == name).unwrap_or_else(|| panic!("no {name}")).2
    }

    fn names() -> BTreeSet<&'static str> {
        FILES.iter().map(|(name, ..)| *name).collect()
    }

    /// Each text between `open` and the next `close`.
    fn between<'a>(text: &'a str, open: &'a str, close: char) -> impl Iterator<Item = &'a str> {
        text.split(open).skip(1).map(move |rest| rest.split(close).next().unwrap())
    }

    #[test]
    fn every_file_of_the_folder_is_served_and_no_other() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin/page");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let files: BTreeSet<String> = files.map(|name| name.into_string().unwrap()).collect();
        let served = names().into_iter().map(str::to_owned).chain(["index.html".to_owned()]);
        assert_eq!(files, served.collect());
    }

    #[test]
    fn every_file_is_used_and_every_used_file_exists() {
        let mut named: BTreeSet<&str> = between(INDEX, "\"/ui/", '"').collect();
        for (name, ..) in FILES {
            let imports: Vec<_> = between(file(name), "from \"./", '"').collect();
            assert!(imports.is_empty() || name.ends_with(".js"), "{name}");
            named.extend(imports);
        }
        assert_eq!(named, names());
    }

    #[test]
    fn every_element_that_a_script_looks_up_by_its_id_is_in_the_page() {
        let ids: BTreeSet<&str> = between(INDEX, " id=\"", '"').collect();
        for (name, ..) in FILES {
            for wanted in between(file(name), "byId(\"", '"') {
                assert!(ids.contains(wanted), "{name} looks up {wanted}");
            }
        }
    }

    #[test]
    fn the_page_keeps_its_content_security_policy_and_inserts_no_markup() {
        for wrong in ["<style", "style=", "javascript:", " on", "http:", "https:", "//"] {
            let html = INDEX.replace("</noscript>", "").to_lowercase();
            let inside_tags = html.split('<').filter_map(|rest| rest.split('>').next());
            let tags = inside_tags.filter(|tag| !tag.starts_with("!--"));
            let found: Vec<_> = tags.filter(|tag| format!("<{tag}").contains(wrong)).collect();
            assert!(found.is_empty(), "{wrong}: {found:?}");
        }
        for script in between(INDEX, "<script", '>') {
            assert!(script.contains("src=\"/ui/"), "{script}");
        }
        let forbidden = [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "Function(",
            "DOMParser",
            "srcdoc",
            "createContextualFragment",
            "\"style\"",
            "setTimeout(\"",
            "import(",
        ];
        for (name, kind, content) in FILES.iter().filter(|(_, kind, _)| *kind == SCRIPT) {
            for wrong in forbidden {
                assert!(!content.contains(wrong), "{name} ({kind}): {wrong}");
            }
        }
    }

    /// The SVG namespace is a name that browsers never fetch.
    #[test]
    fn no_file_names_another_host() {
        for (name, _, content) in FILES.iter().copied().chain([("index.html", HTML, INDEX)]) {
            let rest = content.replace("http://www.w3.org/2000/svg", "");
            assert!(
                !rest.contains("http://") && !rest.contains("https://") && !rest.contains("url("),
                "{name}"
            );
        }
    }

    #[test]
    fn every_reason_has_a_colour_in_both_schemes_and_every_identity_a_name() {
        let (words, style) = (file("words.js"), file("style.css"));
        for reason in Reason::ALL.map(Reason::name) {
            assert!(words.contains(&format!("\"{reason}\"")), "{reason}");
            assert_eq!(style.matches(&format!("--k-{reason}:")).count(), 2, "{reason}");
            assert!(style.contains(&format!(".k-{reason} {{ fill: var(--k-{reason}); }}")), "{reason}");
        }
        for identity in Identity::ALL {
            assert!(words.contains(&format!("\"{identity}\"")), "{identity}");
        }
    }
}
