//! A headless Chromium, driven by chromedriver: plain WebDriver (W3C), JSON over HTTP, as much of it as the tests need.
//!
//! What the page must never do is collected from its first line on: errors, violations of its policy, requests to others.

use std::io::BufRead as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::support::process;

/// For anything that the page is to show, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Of a picture.
const TALLEST: u64 = 1800;

/// Keys by their names in WebDriver (17.4.2).
pub(crate) const TAB: &str = "\u{e004}";
pub(crate) const ENTER: &str = "\u{e007}";
pub(crate) const ESCAPE: &str = "\u{e00c}";
pub(crate) const LEFT: &str = "\u{e012}";

/// The name of an element in JSON (WebDriver 12.1).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// What a test's script looks at, however the page ends: violations of the policy, and errors that nobody caught.
const WATCH: &str = "
    window.trouble = [];
    addEventListener('securitypolicyviolation', (event) => trouble.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sample}`));
    addEventListener('error', (event) => trouble.push(`error: ${event.message}`));
    addEventListener('unhandledrejection', (event) => trouble.push(`rejection: ${event.reason}`));";

/// How the page is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) dark: bool,
    pub(crate) phone: bool,
}

pub(crate) const DESK: Look = Look { width: 1280, height: 900, dark: false, phone: false };
pub(crate) const PHONE: Look = Look { width: 390, height: 844, dark: false, phone: true };

/// A browser with one window. Dropping it ends it.
pub(crate) struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    _home: TempDir,
}

impl Browser {
    /// None where there is no Chromium, with a word about it.
    pub(crate) async fn start(look: Look) -> Option<Self> {
        let (driver, chromium) = (process::program("chromedriver")?, process::program("chromium")?);
        let home = tempfile::Builder::new().prefix("rmxd-browser-").tempdir().unwrap();
        let (driver, port) = tokio::task::spawn_blocking({
            let home = home.path().to_path_buf();
            move || start_driver(&driver, &home)
        })
        .await
        .unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut browser = Self { driver, address, session: String::new(), _home: home };
        let session = browser.ask("POST", "/session", &capabilities(&chromium, browser._home.path())).await;
        browser.session = format!("/session/{}", session["sessionId"].as_str().unwrap());
        browser.devtools("Page.addScriptToEvaluateOnNewDocument", json!({ "source": WATCH })).await;
        browser.look(look).await;
        Some(browser)
    }

    /// Another size, or another scheme of colours.
    pub(crate) async fn look(&self, look: Look) {
        let Look { width, height, dark, phone } = look;
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// The time zone of the pages.
    pub(crate) async fn zone(&self, name: &str) {
        self.devtools("Emulation.setTimezoneOverride", json!({ "timezoneId": name })).await;
    }

    pub(crate) async fn open(&self, url: &str) {
        self.command("POST", "/url", &json!({ "url": url })).await;
    }

    /// What a script returns.
    pub(crate) async fn script(&self, script: &str) -> Value {
        self.command("POST", "/execute/sync", &json!({ "script": script, "args": [] })).await
    }

    /// The same as text.
    pub(crate) async fn text(&self, expression: &str) -> String {
        let value = self.script(&format!("return String({expression})")).await;
        value.as_str().unwrap().to_owned()
    }

    /// Waits until an expression is true of the page, or whatever counts as true.
    pub(crate) async fn until(&self, expression: &str) {
        let began = Instant::now();
        while self.script(&format!("return Boolean({expression})")).await != json!(true) {
            if began.elapsed() > PATIENCE {
                let body = self.text("document.body.innerText").await;
                panic!(
                    "not within {PATIENCE:?}: {expression}\n{}\n--- the page\n{body}",
                    self.trouble().await.join("\n")
                );
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Clicks on the first element that a selector finds, as a hand does.
    pub(crate) async fn click(&self, selector: &str) {
        let element = self.element(selector).await;
        self.command("POST", &format!("/element/{element}/click"), &json!({})).await;
    }

    /// Types into it.
    pub(crate) async fn fill(&self, selector: &str, text: &str) {
        let element = self.element(selector).await;
        self.command("POST", &format!("/element/{element}/clear"), &json!({})).await;
        self.command("POST", &format!("/element/{element}/value"), &json!({ "text": text })).await;
    }

    /// Presses keys one by one, wherever the focus is.
    pub(crate) async fn press(&self, keys: &str) {
        let strokes: Vec<Value> = keys
            .chars()
            .flat_map(|key| {
                ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key.to_string() }))
            })
            .collect();
        let actions = json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": strokes }] });
        self.command("POST", "/actions", &actions).await;
    }

    /// Presses a key until an expression is true; how often a person would have to is bounded.
    pub(crate) async fn press_until(&self, key: &str, expression: &str) {
        for _ in 0..60 {
            if self.script(&format!("return Boolean({expression})")).await == json!(true) {
                return;
            }
            self.press(key).await;
        }
        panic!(
            "60 times, and still not {expression}: {}",
            self.text("document.activeElement.outerHTML").await
        );
    }

    /// Lets the pages of a daemon use the clipboard, as a hand on the button does.
    pub(crate) async fn allow_clipboard(&self, of: SocketAddr) {
        let permissions = json!({ "origin": format!("http://{of}"), "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"] });
        self.devtools("Browser.grantPermissions", permissions).await;
    }

    /// A picture of the page, from its top on, in `target/screenshots`; of the window where a dialog is open.
    pub(crate) async fn screenshot(&self, name: &str) {
        let height =
            "return document.querySelector('dialog[open]') ? 0 : document.documentElement.scrollHeight";
        let height = self.script(height).await.as_u64().unwrap().min(TALLEST);
        let width = self.script("return innerWidth").await;
        let clip = json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": 1 });
        let shown = match height {
            0 => json!({ "format": "png" }),
            _ => json!({ "format": "png", "captureBeyondViewport": true, "clip": clip }),
        };
        let picture = self.devtools("Page.captureScreenshot", shown).await;
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("screenshots");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name).with_extension("png"), base64(picture["data"].as_str().unwrap()))
            .unwrap();
    }

    /// How far the page is wider than the window.
    pub(crate) async fn overflow(&self) -> i64 {
        let overflow = self.script("return document.documentElement.scrollWidth - innerWidth").await;
        overflow.as_i64().unwrap()
    }

    /// Everything that the page did and must not: errors, violations of its policy, also as the console has them.
    pub(crate) async fn trouble(&self) -> Vec<String> {
        let caught = self.script("return window.trouble ?? ['nothing watched']").await;
        let texts = |value: &Value| -> Vec<String> {
            value
                .as_array()
                .unwrap()
                .iter()
                .map(|text| text.as_str().map_or_else(|| text.to_string(), str::to_owned))
                .collect()
        };
        let mut trouble = texts(&caught);
        let console = self.command("POST", "/se/log", &json!({ "type": "browser" })).await;
        let entries = console.as_array().unwrap().iter();
        let bad = entries.filter(|entry| matches!(entry["level"].as_str(), Some("SEVERE" | "WARNING")));
        trouble.extend(bad.map(|entry| entry["message"].as_str().unwrap().to_owned()));
        trouble
    }

    /// The addresses that were asked for since the last time.
    pub(crate) async fn requests(&self) -> Vec<String> {
        let log = self.command("POST", "/se/log", &json!({ "type": "performance" })).await;
        let messages = log.as_array().unwrap().iter();
        let messages =
            messages.map(|entry| serde_json::from_str::<Value>(entry["message"].as_str().unwrap()).unwrap());
        let requests = messages.filter(|message| message["message"]["method"] == "Network.requestWillBeSent");
        requests
            .map(|request| request["message"]["params"]["request"]["url"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Ends the browser, and then the driver.
    pub(crate) async fn quit(self) {
        self.command("DELETE", "", &Value::Null).await;
    }

    async fn element(&self, selector: &str) -> String {
        let found =
            self.command("POST", "/element", &json!({ "using": "css selector", "value": selector })).await;
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        let body = json!({ "cmd": command, "params": parameters });
        self.command("POST", "/goog/cdp/execute", &body).await
    }

    async fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        self.ask(method, &format!("{}{path}", self.session), body).await
    }

    async fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            body.len(),
        );
        let mut stream = BufReader::new(TcpStream::connect(self.address).await.unwrap());
        stream.write_all(request.as_bytes()).await.unwrap();
        let answered = timeout(PATIENCE * 2, answer(&mut stream)).await;
        let (status, mut answer) = answered.unwrap_or_else(|_| panic!("{method} {path}: no answer"));
        let value = answer["value"].take();
        assert_eq!(status, 200, "{method} {path} {body:.300}: {value:.300}");
        value
    }
}

/// Status and body. The driver keeps the connection open, whatever it is told.
async fn answer(stream: &mut BufReader<TcpStream>) -> (u16, Value) {
    let (mut head, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        if line.trim_end().is_empty() {
            break;
        }
        let line = line.to_ascii_lowercase();
        if let Some(octets) = line.strip_prefix("content-length:") {
            length = octets.trim().parse().unwrap();
        }
        head.push(line);
    }
    let status = head.first().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

impl Drop for Browser {
    /// The driver, and the browser, which is in its group of processes: one that hangs, too.
    fn drop(&mut self) {
        let group = format!("-{}", self.driver.id());
        for signal in ["-TERM", "-KILL"] {
            drop(Command::new("kill").args([signal, "--", &group]).stderr(Stdio::null()).status());
            if signal == "-TERM" {
                drop(self.driver.wait());
            }
        }
    }
}

/// Starts chromedriver. It chooses a port for IPv4 and ends if that is taken for IPv6, so that it has several attempts.
fn start_driver(program: &Path, home: &Path) -> (Child, u16) {
    (0..5).find_map(|_| try_to_start_driver(program, home)).expect("chromedriver doesn't start")
}

/// `None` if it ends instead of saying its port.
fn try_to_start_driver(program: &Path, home: &Path) -> Option<(Child, u16)> {
    let mut command = Command::new(program);
    command
        .arg("--port=0")
        .env("HOME", home)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    // Ctrl-C in a terminal is for the tests; the driver is ended by them.
    let mut driver = command.process_group(0).spawn().unwrap();
    let mut output = std::io::BufReader::new(driver.stdout.take().unwrap());
    let mut line = String::new();
    while output.read_line(&mut line).unwrap() > 0 {
        if let Some(port) = line.trim_end().trim_end_matches('.').rsplit_once("started successfully on port ")
        {
            let port = port.1.parse().unwrap();
            // What else it says must not fill the pipe.
            std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
            return Some((driver, port));
        }
        line.clear();
    }
    eprintln!("chromedriver doesn't start: {:?}", driver.wait());
    None
}

/// Chromium with a folder of its own. Root has no sandbox, and a container no large `/dev/shm`.
fn capabilities(chromium: &Path, home: &Path) -> Value {
    let profile: PathBuf = home.join("profile");
    let arguments = [
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--hide-scrollbars",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-proxy-server",
        "--lang=en",
    ];
    let arguments =
        arguments.map(str::to_owned).into_iter().chain([format!("--user-data-dir={}", profile.display())]);
    json!({ "capabilities": { "alwaysMatch": {
        "goog:chromeOptions": { "binary": chromium, "args": arguments.collect::<Vec<_>>() },
        "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
    } } })
}

/// RFC 4648 4.
fn base64(text: &str) -> Vec<u8> {
    let value = |octet: u8| match octet {
        b'A'..=b'Z' => octet - b'A',
        b'a'..=b'z' => octet - b'a' + 26,
        b'0'..=b'9' => octet - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let (mut octets, mut bits, mut have) = (Vec::new(), 0u32, 0);
    for octet in text.bytes().filter(|octet| *octet != b'=') {
        bits = bits << 6 | u32::from(value(octet));
        have += 6;
        if have >= 8 {
            have -= 8;
            octets.push(u8::try_from(bits >> have & 0xff).unwrap());
        }
    }
    octets
}
