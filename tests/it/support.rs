//! A real server in a directory of its own, and the real command line program against it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take before a story gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The `dispatch` program, beside the test binary's own directory.
pub fn program() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    let program = path.join("dispatch");
    assert!(program.exists(), "{} is missing: run cargo build first", program.display());
    program
}

/// The project's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A server process.
pub struct Server {
    child: Child,
    /// The API's port.
    pub port: u16,
    /// The gateway's port.
    pub gateway: u16,
    /// Everything the server keeps.
    pub data: PathBuf,
    home: tempfile::TempDir,
    log: Arc<Mutex<Vec<String>>>,
}

/// What a command did.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Done {
    /// Standard output of a command that must succeed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// Standard error of a command that must fail.
    #[track_caller]
    pub fn fails(self) -> String {
        assert_eq!(self.code, 1, "{self:?}");
        self.err
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(self) -> Value {
        let out = self.ok();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }
}

impl Server {
    /// Starts a server on free ports in a directory of its own.
    pub fn start() -> Server {
        Server::with(&[])
    }

    /// The same with further flags.
    pub fn with(flags: &[&str]) -> Server {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("data");
        Server::launch(home, data, flags)
    }

    /// The same with variables in its environment.
    pub fn with_environment(variables: &[(&str, &str)]) -> Server {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("data");
        let mut command = Command::new(program());
        command.arg("server").envs(variables.iter().copied());
        Server::spawn(command, home, data, &[])
    }

    fn launch(home: tempfile::TempDir, data: PathBuf, flags: &[&str]) -> Server {
        let mut command = Command::new(program());
        command.arg("server");
        Server::spawn(command, home, data, flags)
    }

    /// Starts a server as another user, who owns its home directory and nothing else.
    pub fn as_user(uid: u32) -> Server {
        Server::as_user_with(uid, &[])
    }

    /// The same with further flags.
    pub fn as_user_with(uid: u32, flags: &[&str]) -> Server {
        use std::os::unix::fs::{PermissionsExt as _, chown};
        let home = tempfile::tempdir().unwrap();
        let copy = home.path().join("dispatch");
        std::fs::copy(program(), &copy).unwrap();
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        chown(home.path(), Some(uid), Some(uid)).unwrap();
        let id = uid.to_string();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).arg(copy).arg("server");
        let data = home.path().join("data");
        Server::spawn(command, home, data, flags)
    }

    fn spawn(
        mut command: Command,
        home: tempfile::TempDir,
        data: PathBuf,
        flags: &[&str],
    ) -> Server {
        let mut child = command
            .args(["--port", "0", "--gateway-port", "0", "--log-format", "json", "--data-dir"])
            .arg(&data)
            .args(flags)
            .env("HOME", home.path())
            .env_remove("DISPATCH_CONFIG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (sender, ready) = std::sync::mpsc::channel();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let entry: Value = serde_json::from_str(&line).unwrap_or_default();
                if entry["message"] == "ready" {
                    let port = |key: &str| {
                        let address = entry[key].as_str().unwrap();
                        address.rsplit(':').next().unwrap().parse::<u16>().unwrap()
                    };
                    let _ = sender.send((port("api"), port("gateway")));
                }
                kept.lock().unwrap().push(line);
            }
        });
        let Ok((port, gateway)) = ready.recv_timeout(PATIENCE) else {
            let _ = child.kill();
            panic!("the server did not become ready:\n{}", log.lock().unwrap().join("\n"));
        };
        Server { child, port, gateway, data, home, log }
    }

    /// Kills the server as a power cut would, and starts it again on the same data.
    pub fn crash_and_restart(mut self, flags: &[&str]) -> Server {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let home = std::mem::replace(&mut self.home, tempfile::tempdir().unwrap());
        let data = self.data.clone();
        drop(self);
        Server::launch(home, data, flags)
    }

    /// Asks the server to stop and returns its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the server did not stop:\n{}", self.log());
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the server has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// The home directory of this story's user; also a place for files.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Writes a file below the home directory.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.home.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A command against this server, run from the project's root.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command
            .args(args)
            .current_dir(root())
            .env("HOME", self.home.path())
            .env("DISPATCH_HOST", "127.0.0.1")
            .env("DISPATCH_PORT", self.port.to_string())
            .env("DISPATCH_SCHEME", "http")
            .env("NO_COLOR", "1")
            .env_remove("DISPATCH_CONFIG");
        command
    }

    /// Runs a command with no input.
    pub fn dispatch(&self, args: &[&str]) -> Done {
        self.dispatch_with(args, None)
    }

    /// Runs a command with text on its standard input, or with none at all.
    pub fn dispatch_with(&self, args: &[&str], input: Option<&str>) -> Done {
        let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
        let mut child = self
            .command(args)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().unwrap();
        Done {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Waits until a resource is READY or ERROR and returns it.
    #[track_caller]
    pub fn settled(&self, kind: &str, name: &str) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let resource = self.dispatch(&["get", kind, name, "-o", "json"]).json();
            if matches!(resource["status"].as_str(), Some("READY" | "ERROR")) {
                return resource;
            }
            assert!(Instant::now() < end, "{kind} {name} is still {}", resource["status"]);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The same, and it must be READY.
    #[track_caller]
    pub fn ready(&self, kind: &str, name: &str) -> Value {
        let resource = self.settled(kind, name);
        assert_eq!(resource["status"], "READY", "{resource}");
        resource
    }

    /// Makes the base image and the image of a language, and waits for them.
    #[track_caller]
    pub fn image(&self, language: &str) {
        let base = format!("{language}-base");
        let url = format!("dispatchframework/{base}:0.0.13-knative");
        self.dispatch(&["create", "base-image", &base, &url]).ok();
        self.dispatch(&["create", "image", language, &base]).ok();
        self.ready("image", language);
    }

    /// Makes a function of one Python file and waits until it serves.
    #[track_caller]
    pub fn python(&self, name: &str, source: &str, flags: &[&str]) {
        let path = self.file(&format!("src/{name}/handler.py"), source);
        let mut args = vec!["create", "function", "--image", "python3", name, &path];
        args.extend(flags);
        self.dispatch(&args).ok();
        self.ready("function", name);
    }

    /// Calls a function and returns the run.
    #[track_caller]
    pub fn run(&self, name: &str, input: &str) -> Value {
        self.dispatch(&["exec", name, "--wait", "--input", input, "-o", "json"]).json()
    }

    /// A URL of the API.
    pub fn api(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// A URL of the gateway.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.gateway)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the server's log\n{}", self.log());
        }
    }
}

/// Waits until something holds.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A server of static files on loopback; killed when this is dropped.
pub struct FileServer {
    pub port: u16,
    process: Child,
}

impl FileServer {
    pub fn start(directory: &Path) -> FileServer {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("python3");
        command.args(["-m", "http.server", "--bind", "127.0.0.1", &port.to_string()]);
        command.current_dir(directory).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().unwrap();
        until("the files can be had", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        FileServer { port, process }
    }
}

impl Drop for FileServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
