//! `GET /tunnel?port=N`: a byte stream to a service that listens only on the guest's loopback.
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Request, Response, StatusCode};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Connection;
use super::body::{Body, HttpError, empty};

const PROTOCOL: &str = "wrenn-tunnel";

/// On loopback a connection is made or refused at once, unless the service's backlog is full.
const DIAL_LIMIT: Duration = Duration::from_secs(5);

fn asks_for_tunnel(request: &Request<Incoming>) -> bool {
    let value = request.headers().get(UPGRADE).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| value.eq_ignore_ascii_case(PROTOCOL))
}

async fn dial(port: u16) -> io::Result<TcpStream> {
    let addresses: [SocketAddr; 2] = [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
    let connect = async {
        match TcpStream::connect(addresses[0]).await {
            Ok(stream) => Ok(stream),
            // The first reason is the one to tell: a guest without IPv6 has nothing to say about the second.
            Err(refused) => TcpStream::connect(addresses[1]).await.map_err(|_| refused),
        }
    };
    timeout(DIAL_LIMIT, connect).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

pub(super) async fn open(mut request: Request<Incoming>, port: Option<&str>) -> Result<Response<Body>, HttpError> {
    if !asks_for_tunnel(&request) {
        return Err(HttpError::new(StatusCode::UPGRADE_REQUIRED, format!("a tunnel needs 'Upgrade: {PROTOCOL}'")));
    }
    let port = port
        .and_then(|port| port.parse().ok())
        .filter(|port| *port != 0)
        .ok_or_else(|| HttpError::bad_request("the port must be a number from 1 to 65535"))?;
    let target = dial(port)
        .await
        .map_err(|error| HttpError::new(StatusCode::BAD_GATEWAY, format!("port {port} is not open: {error}")))?;
    let _ = target.set_nodelay(true);

    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(carry(upgrade, target));
    let mut response = empty(StatusCode::SWITCHING_PROTOCOLS);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
    Ok(response)
}

/// Until both directions have ended; the end of one is passed on while the other goes on.
async fn carry(upgrade: OnUpgrade, mut target: TcpStream) {
    let Ok(upgraded) = upgrade.await else { return };
    let Ok(parts) = Upgraded::downcast::<Connection>(upgraded) else { return };
    let Connection(mut client) = parts.io;
    // What the client sent right behind its request.
    if !parts.read_buf.is_empty() && tokio::io::AsyncWriteExt::write_all(&mut target, &parts.read_buf).await.is_err() {
        return;
    }
    // An error is one side resetting: both sockets close.
    let _ = copy_bidirectional(&mut client, &mut target).await;
}
