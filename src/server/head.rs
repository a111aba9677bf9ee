//! Heads of responses written without the framework.

use std::time::SystemTime;

use bytes::Bytes;

use crate::http::refusal::stream_head;

/// The response to a client without a whole head in time, the same as the framework's.
pub(super) fn request_timeout() -> String {
    format!(
        "HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\ndate: {}\r\n\r\n",
        date()
    )
}

/// The head of every stream, the same as the framework's. Only the date and the CORS lines change.
pub(super) struct StreamHead {
    /// The lines before the date.
    text: String,
}

impl StreamHead {
    pub fn new() -> Self {
        let head = stream_head().finish();
        let mut text =
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n".to_owned();
        for (name, value) in head.headers() {
            let value = value.to_str().expect("the hub's own headers are ASCII");
            text += &format!("{name}: {value}\r\n");
        }
        Self { text }
    }

    /// The head with the present date and further whole lines.
    pub fn with(&self, lines: &str) -> Bytes {
        Bytes::from(format!("{}{lines}date: {}\r\n\r\n", self.text, date()))
    }
}

fn date() -> httpdate::HttpDate {
    SystemTime::now().into()
}
