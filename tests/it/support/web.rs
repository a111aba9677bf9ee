//! A web server of the test: it records requests, and answers as the test says.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::sleep,
};

/// One request as received.
#[derive(Debug, Clone)]
pub struct Received {
    head: String,
    pub body: String,
}

impl Received {
    /// The first value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<String> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    }

    pub fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }
}

type Answer = dyn Fn(&Received) -> (u16, String) + Send + Sync;

/// Ends with the test.
pub struct WebServer {
    pub addr: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    answer: Arc<Mutex<Arc<Answer>>>,
    /// Accepted requests get no answer while it is set.
    is_silent: Arc<AtomicBool>,
}

impl WebServer {
    /// Answers each request with a status and a body of JSON.
    pub async fn start(
        answer: impl Fn(&Received) -> (u16, String) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let server = Self {
            addr: listener.local_addr().expect("it listens"),
            received: Arc::default(),
            answer: Arc::new(Mutex::new(Arc::new(answer))),
            is_silent: Arc::default(),
        };
        let shared = (server.received.clone(), server.answer.clone(), server.is_silent.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (received, answer, is_silent) = shared.clone();
                tokio::spawn(async move {
                    serve(socket, &received, &answer, &is_silent).await;
                });
            }
        });
        server
    }

    /// Changes the answers.
    pub fn answers(&self, answer: impl Fn(&Received) -> (u16, String) + Send + Sync + 'static) {
        *self.answer.lock() = Arc::new(answer);
    }

    /// Holds all answers back, or answers again.
    pub fn set_silent(&self, is_silent: bool) {
        self.is_silent.store(is_silent, Ordering::SeqCst);
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().clone()
    }

    pub fn count(&self) -> usize {
        self.received.lock().len()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }
}

async fn serve(
    mut socket: TcpStream,
    received: &Mutex<Vec<Received>>,
    answer: &Mutex<Arc<Answer>>,
    is_silent: &AtomicBool,
) {
    while let Some(request) = read(&mut socket).await {
        received.lock().push(request.clone());
        while is_silent.load(Ordering::SeqCst) {
            sleep(Duration::from_millis(10)).await;
        }
        let answer = answer.lock().clone();
        let (status, body) = answer(&request);
        let length = body.len();
        let text = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        if socket.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read(socket: &mut TcpStream) -> Option<Received> {
    let mut bytes = Vec::new();
    let end = loop {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = end {
            break end;
        }
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let request = Received { head, body: String::new() };
    let length: usize =
        request.header("content-length").and_then(|text| text.parse().ok()).unwrap_or_default();
    while bytes.len() < end + 4 + length {
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let body = String::from_utf8_lossy(&bytes[end + 4..end + 4 + length]).into_owned();
    Some(Received { body, ..request })
}
