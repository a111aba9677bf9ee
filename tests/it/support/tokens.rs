//! Keys by openssl, and tokens by libraries other than fanfare's.

use std::{
    fs,
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use super::{directory::Directory, repository::repository};

/// A shared secret, long enough for every library and algorithm.
pub const SECRET: &str = "a shared secret of the tests, of more than sixty-four bytes in length";

/// Every algorithm of the hub.
pub const ALGORITHMS: [&str; 12] = [
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256",
    "ES384", "EdDSA",
];

/// Programs signing tokens, by library.
pub const LIBRARIES: [Library; 2] = [Library::PyJwt, Library::Jose];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    PyJwt,
    Jose,
}

/// A token to be signed.
#[derive(Debug, Clone)]
pub struct Order {
    pub algorithm: &'static str,
    /// A secret, or a private key in PEM.
    pub key: String,
    pub claims: Value,
    /// Further entries of the head.
    pub headers: Value,
}

impl Order {
    pub fn new(algorithm: &'static str, key: impl Into<String>, claims: Value) -> Self {
        Self { algorithm, key: key.into(), claims, headers: json!({}) }
    }

    pub fn headers(self, headers: Value) -> Self {
        Self { headers, ..self }
    }
}

/// Seconds since 1970.
pub fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs()
}

/// A token by PyJWT with the secret and these claims; `exp` is in an hour.
pub fn token(claims: Value) -> String {
    let mut all = json!({ "exp": unix_s() + 3600 });
    for (name, value) in claims.as_object().expect("claims are an object") {
        all[name] = value.clone();
    }
    mint(Library::PyJwt, &[Order::new("HS256", SECRET, all)]).remove(0)
}

/// Signs tokens.
pub fn mint(library: Library, orders: &[Order]) -> Vec<String> {
    let orders = orders.iter().map(|order| {
        let Order { algorithm, key, claims, headers } = order;
        json!({ "algorithm": algorithm, "key": key, "claims": claims, "headers": headers })
    });
    let mut command = match library {
        Library::PyJwt => {
            let mut command = Command::new(repository().join("target/python/bin/python"));
            command.arg(repository().join("tests/python/mint.py"));
            command
        }
        Library::Jose => node(&[]),
    };
    let output = run(&mut command, &Value::from_iter(orders));
    output.lines().map(str::to_owned).collect()
}

/// The key set of public keys with their names, by jose.
pub fn key_set(keys: &[(&str, &KeyPair)]) -> String {
    let keys = keys
        .iter()
        .map(|(kid, pair)| json!({ "kid": kid, "algorithm": pair.algorithm, "key": pair.public }));
    run(&mut node(&["jwks"]), &json!({ "keys": Value::from_iter(keys) })).trim().to_owned()
}

fn node(arguments: &[&str]) -> Command {
    let mut command = Command::new("node");
    command.arg(repository().join("tests/js/mint.mjs")).args(arguments);
    command
}

fn run(command: &mut Command, input: &Value) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(input.to_string().as_bytes()).expect("it reads its input");
    drop(stdin);
    let output = child.wait_with_output().expect("it ran");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).expect("tokens are text")
}

/// A key pair in PEM, for one algorithm.
#[derive(Debug)]
pub struct KeyPair {
    pub algorithm: &'static str,
    pub private: String,
    pub public: String,
    /// The files of both, as long as the pair.
    pub directory: Directory,
}

impl KeyPair {
    /// Generates a pair, or takes the secret.
    pub fn new(algorithm: &'static str) -> Self {
        let directory = Directory::new("keys");
        let (private, public) = match key_options(algorithm) {
            None => (SECRET.to_owned(), SECRET.to_owned()),
            Some(options) => generate(&directory, options),
        };
        directory.write("private", &private);
        directory.write("public", &public);
        Self { algorithm, private, public, directory }
    }

    pub fn private_file(&self) -> PathBuf {
        self.directory.path().join("private")
    }

    pub fn public_file(&self) -> PathBuf {
        self.directory.path().join("public")
    }

    /// The `[[access.keys]]` entry, with a name or without.
    pub fn entry(&self, kid: Option<&str>) -> String {
        let file = self.public_file().display().to_string();
        let kid = kid.map(|kid| format!("kid = {kid:?}\n")).unwrap_or_default();
        format!("[[access.keys]]\nalgorithm = {:?}\nfile = {file:?}\n{kid}", self.algorithm)
    }
}

fn key_options(algorithm: &str) -> Option<&'static [&'static str]> {
    Some(match algorithm {
        "ES256" => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        "ES384" => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
        "EdDSA" => &["-algorithm", "ed25519"],
        rsa if rsa.starts_with("RS") || rsa.starts_with("PS") => {
            &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]
        }
        _ => return None,
    })
}

fn generate(directory: &Directory, options: &[&str]) -> (String, String) {
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).current_dir(directory.path()).output();
        let output = output.expect("openssl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    openssl(&[&["genpkey", "-out", "private"], options].concat());
    openssl(&["pkey", "-in", "private", "-pubout", "-out", "public"]);
    let read = |name: &str| fs::read_to_string(directory.path().join(name)).expect("it is there");
    (read("private"), read("public"))
}
