//! A model server that answers each request by its text, over plain sockets.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

/// Serves chat completions as `answer` says, `None` for a refusal, as long as the test runs; returns the base URL.
pub fn serve(answer: impl Fn(&str) -> Option<Value> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let request = read(&stream);
            let (status, body) = match answer(&request) {
                Some(content) => {
                    let message = json!({"role": "assistant", "content": content.to_string()});
                    let usage = json!({"prompt_tokens": 12, "completion_tokens": 3});
                    ("200 OK", json!({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}))
                }
                None => ("400 Bad Request", json!({"error": {"message": "not this"}})),
            };
            let body = body.to_string();
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close",
                body.len()
            );
            let _ = (&stream).write_all(format!("{head}\r\n\r\n{body}").as_bytes());
        }
    });
    url
}

/// The body of a request with `content-length`.
fn read(stream: &TcpStream) -> String {
    let (mut reader, mut length) = (BufReader::new(stream), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    String::from_utf8(body).unwrap()
}
