//! A TCP proxy that stands in for a bad network.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::watch,
    time::sleep,
};

/// Most bytes that are passed on at once.
const CHUNK: usize = 16 << 10;
/// A throttled line moves its bytes in steps of this length.
const STEP: Duration = Duration::from_millis(50);

/// What is wrong with the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Connections are reset, and new ones at once.
    Cut,
    /// Connections stay open, and no byte passes.
    Blackhole,
    /// Answers pass, questions do not.
    OneWay,
    /// Bytes come so much later.
    Latency(Duration),
    /// Each connection is reset in the middle of what it sends, once it has sent so many bytes.
    Reset(usize),
    /// Bytes per second, each way.
    Throttle(usize),
    /// Every request is answered with HTTP status 503, as an overloaded S3 does.
    SlowDown,
}

/// What S3 says when it is asked too much.
const SLOW_DOWN: &[u8] = b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: 87\r\n\
    Connection: close\r\n\r\n<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";

/// Listens on a port of its own and passes everything on to one address. Ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    fault: watch::Sender<Option<Fault>>,
}

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Questions,
    Answers,
}

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
}

impl Proxy {
    /// A line to `target` without a fault.
    ///
    /// # Errors
    /// When there is no port to listen on.
    pub fn start(runtime: &Handle, target: SocketAddr) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let (fault, faults) = watch::channel(None);
        let _inside = runtime.enter();
        let listener = TcpListener::from_std(listener)?;
        runtime.spawn(serve(listener, target, faults));
        Ok(Self { port, fault })
    }

    /// Where it listens, on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on this is wrong with the line, also for the connections that are open.
    pub fn fail(&self, fault: Fault) {
        self.fault.send_replace(Some(fault));
    }

    /// The line is sound again. What was held back passes now.
    pub fn heal(&self) {
        self.fault.send_replace(None);
    }
}

async fn serve(listener: TcpListener, target: SocketAddr, mut faults: watch::Receiver<Option<Fault>>) {
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                tokio::spawn(connection(client, target, faults.clone()));
            }
            // The sender is gone: so is the proxy.
            () = over(&mut faults) => return,
        }
    }
}

async fn over(faults: &mut watch::Receiver<Option<Fault>>) {
    while faults.changed().await.is_ok() {}
}

async fn connection(mut client: TcpStream, target: SocketAddr, faults: watch::Receiver<Option<Fault>>) {
    let fault = *faults.borrow();
    if fault == Some(Fault::SlowDown) {
        // The head of the request; then its sender reads.
        let _ = client.read(&mut [0; CHUNK]).await;
        let _ = client.write_all(SLOW_DOWN).await;
        let _ = client.shutdown().await;
        let _ = tokio::io::copy(&mut client, &mut tokio::io::sink()).await;
        return;
    }
    let cut = fault == Some(Fault::Cut);
    let server = if cut { Err(io::ErrorKind::ConnectionReset.into()) } else { TcpStream::connect(target).await };
    let Ok(mut server) = server else {
        let _ = client.set_zero_linger();
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let end = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            end = pass(from_client, to_server, Way::Questions, faults.clone()) => end,
            end = pass(from_server, to_client, Way::Answers, faults.clone()) => end,
        }
    };
    if end == End::Reset {
        // Closing then sends RST instead of FIN.
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

/// Passes bytes on until one end closes or the fault says so.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    way: Way,
    mut faults: watch::Receiver<Option<Fault>>,
) -> End {
    let mut buffer = vec![0; CHUNK];
    let mut sent_since = 0;
    loop {
        let fault = *faults.borrow_and_update();
        let held = fault == Some(Fault::Blackhole) || (fault == Some(Fault::OneWay) && way == Way::Questions);
        // A new connection hears the refusal.
        if matches!(fault, Some(Fault::Cut | Fault::SlowDown)) {
            return End::Reset;
        }
        let read = tokio::select! {
            biased;
            changed = faults.changed() => match changed {
                Ok(()) => { sent_since = 0; continue }
                Err(_) => return End::Reset,
            },
            read = from.read(&mut buffer), if !held => read,
        };
        let Ok(count @ 1..) = read else { return End::Closed };
        let bytes = &buffer[..count];
        let written = match fault {
            Some(Fault::Latency(delay)) => {
                sleep(delay).await;
                to.write_all(bytes).await
            }
            Some(Fault::Reset(after)) if way == Way::Questions && sent_since + count >= after => {
                let _ = to.write_all(&bytes[..count / 2]).await;
                return End::Reset;
            }
            Some(Fault::Throttle(rate)) => slowly(&mut to, bytes, rate).await,
            _ => to.write_all(bytes).await,
        };
        if written.is_err() {
            return End::Closed;
        }
        sent_since += count;
    }
}

async fn slowly(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8], rate: usize) -> io::Result<()> {
    let step = (rate as f64 * STEP.as_secs_f64()).max(1.0) as usize;
    for part in bytes.chunks(step) {
        sleep(STEP.mul_f64(part.len() as f64 / step as f64)).await;
        to.write_all(part).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::{
        runtime::Runtime,
        time::{Instant, timeout},
    };

    use super::*;

    const SOON: Duration = Duration::from_millis(300);

    /// A server that answers with what it is sent, and a line to it.
    fn echo() -> (Runtime, Proxy) {
        let runtime = Runtime::new().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a port");
        let target = listener.local_addr().expect("bound");
        runtime.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        let proxy = Proxy::start(runtime.handle(), target).expect("a port");
        (runtime, proxy)
    }

    async fn dial(proxy: &Proxy) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.expect("it listens")
    }

    /// What comes back of `text`; empty when the connection ended.
    async fn ask(stream: &mut TcpStream, text: &[u8]) -> io::Result<Vec<u8>> {
        stream.write_all(text).await?;
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    }

    #[test]
    fn a_sound_line_passes_all_and_a_cut_one_resets() {
        let (runtime, proxy) = echo();
        runtime.block_on(async {
            let mut stream = dial(&proxy).await;
            let long: Vec<u8> = (0..100_000_u32).map(|byte| byte as u8).collect();
            let (mut from, mut to) = stream.split();
            let mut back = vec![0; long.len()];
            let (sent, read) = tokio::join!(to.write_all(&long), from.read_exact(&mut back));
            assert!(sent.is_ok() && read.is_ok() && back == long);
            proxy.fail(Fault::Cut);
            let end = timeout(SOON, stream.read(&mut [0])).await.expect("it ends at once").expect_err("reset");
            assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
            // The reset may be there before the connection is known to stand.
            let new = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await;
            if let Ok(mut new) = new {
                assert!(ask(&mut new, b"hello").await.is_err());
            }
            proxy.fail(Fault::SlowDown);
            let mut asked = dial(&proxy).await;
            asked.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("taken");
            let mut answer = vec![0; SLOW_DOWN.len()];
            asked.read_exact(&mut answer).await.expect("answered");
            assert!(answer.starts_with(b"HTTP/1.1 503") && answer.ends_with(b"</Error>"));
            proxy.heal();
            assert_eq!(ask(&mut dial(&proxy).await, b"hello").await.expect("sound"), b"hello");
        });
    }

    #[test]
    fn a_blackhole_keeps_everything_back_until_it_heals() {
        let (runtime, proxy) = echo();
        runtime.block_on(async {
            for fault in [Fault::Blackhole, Fault::OneWay] {
                let mut stream = dial(&proxy).await;
                assert_eq!(ask(&mut stream, b"before").await.expect("sound"), b"before");
                proxy.fail(fault);
                assert!(timeout(SOON, ask(&mut stream, b"during")).await.is_err(), "{fault:?}");
                proxy.heal();
                let mut late = [0; 6];
                stream.read_exact(&mut late).await.expect("it passes now");
                assert_eq!(&late, b"during", "{fault:?}");
            }
        });
    }

    #[test]
    fn slow_lines_are_slow_and_resets_come_in_the_middle() {
        let (runtime, proxy) = echo();
        runtime.block_on(async {
            proxy.fail(Fault::Latency(Duration::from_millis(100)));
            let start = Instant::now();
            assert_eq!(ask(&mut dial(&proxy).await, b"hello").await.expect("slow"), b"hello");
            assert!(start.elapsed() >= Duration::from_millis(200), "each way");
            proxy.fail(Fault::Throttle(1_000));
            let start = Instant::now();
            ask(&mut dial(&proxy).await, &[7; 200]).await.expect("slow");
            assert!(start.elapsed() >= Duration::from_millis(200));
            proxy.fail(Fault::Reset(10));
            let mut stream = dial(&proxy).await;
            assert_eq!(ask(&mut stream, b"short").await.expect("not yet"), b"short");
            let mut rest = Vec::new();
            stream.write_all(b"too long for it").await.expect("taken");
            assert!(stream.read_to_end(&mut rest).await.is_err() && rest.len() < 15);
        });
    }
}
