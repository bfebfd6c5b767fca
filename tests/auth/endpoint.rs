//! A small HTTP server of the tests' own: it keeps what it was asked, and answers as it is told to.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Semaphore,
};

/// How many questions were under way at once.
#[derive(Default)]
struct Crowd {
    now: usize,
    most: usize,
}

/// What is answered.
#[derive(Clone)]
pub enum Answer {
    /// A status and a body.
    Body(u16, String),
    /// A redirect to there.
    To(String),
    /// Nothing, for as long as anybody waits.
    Silence,
    /// Nothing to who brings this, and a 200 with this body to everybody else.
    SilenceTo(&'static str, String),
    /// A body without an end.
    Endless,
    /// A status and a body, once that is let go.
    Held(Arc<Semaphore>, u16, String),
}

/// An endpoint on a free port. Each question is the whole head of a request.
#[derive(Clone)]
pub struct Endpoint {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    answer: Arc<Mutex<Answer>>,
    crowd: Arc<Mutex<Crowd>>,
}

impl Endpoint {
    /// One that answers 200 with this body.
    pub async fn new(body: impl ToString) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Self {
            url: format!("http://{}/", listener.local_addr().unwrap()),
            asked: Arc::default(),
            answer: Arc::new(Mutex::new(Answer::Body(200, body.to_string()))),
            crowd: Arc::default(),
        };
        let serving = endpoint.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        endpoint
    }

    async fn serve(self, mut stream: tokio::net::TcpStream) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let head = String::from_utf8(head).unwrap();
        self.asked.lock().unwrap().push(head.clone());
        let answer = match self.answer.lock().unwrap().clone() {
            Answer::SilenceTo(whom, _) if head.contains(whom) => Answer::Silence,
            Answer::SilenceTo(_, body) => Answer::Body(200, body),
            answer => answer,
        };
        {
            let mut crowd = self.crowd.lock().unwrap();
            crowd.now += 1;
            crowd.most = crowd.most.max(crowd.now);
        }
        self.answer(&mut stream, answer).await;
        self.crowd.lock().unwrap().now -= 1;
    }

    async fn answer(&self, stream: &mut tokio::net::TcpStream, answer: Answer) {
        let answer = match answer {
            Answer::Held(gate, status, body) => {
                // It is closed to let all go.
                let _ = gate.acquire().await;
                Answer::Body(status, body)
            }
            answer => answer,
        };
        let close = "connection: close\r\n";
        match answer {
            Answer::Body(status, body) => {
                let length = body.len();
                let text = format!(
                    "HTTP/1.1 {status} So\r\n{close}content-length: {length}\r\n\r\n{body}"
                );
                let _ = stream.write_all(text.as_bytes()).await;
            }
            Answer::To(url) => {
                let text = format!(
                    "HTTP/1.1 302 Found\r\n{close}location: {url}\r\ncontent-length: 0\r\n\r\n"
                );
                let _ = stream.write_all(text.as_bytes()).await;
            }
            Answer::Silence | Answer::SilenceTo(..) => {
                let _ = stream.read_u8().await;
            }
            Answer::Endless => {
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"sub\":\"")
                    .await;
                while stream.write_all(&[b'a'; 4096]).await.is_ok() {}
            }
            Answer::Held(..) => unreachable!("it is a body by now"),
        }
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How it answers from now on.
    pub fn answers(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    /// The questions that are under way.
    pub fn at_once(&self) -> usize {
        self.crowd.lock().unwrap().now
    }

    /// The most that were under way at once.
    pub fn most_at_once(&self) -> usize {
        self.crowd.lock().unwrap().most
    }

    /// The heads of all requests so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}
