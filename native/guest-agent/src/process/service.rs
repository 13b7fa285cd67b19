//! The calls of `process.Process`.
use std::sync::Arc;
use std::time::Duration;

use hyper::Response;
use rustix::process::Signal;
use tokio::time::{Instant, sleep_until};

use super::launch::Launch;
use super::output::Subscription;
use super::running::Process;
use super::subscriber::{Event, Stream};
use crate::agent::Agent;
use crate::connect::call::Framing;
use crate::connect::{Call, Code, ConnectError, EventSource, reply};
use crate::proto::process as proto;
use crate::proto::process::process_event::data_event::Output;
use crate::proto::process::process_event::{DataEvent, Event as WireEvent, KeepAlive, StartEvent};
use crate::proto::process::process_input::Input;
use crate::proto::process::stream_input_request::Event as InputEvent;
use crate::server::body::Body;
use crate::sync::lock;

/// A request header of `Connect`: "true" asks for the output kept so far before the live one.
const REPLAY_HEADER: &str = "wrenn-replay-output";

/// Nothing when there is no such method.
pub(crate) async fn call(
    agent: &Arc<Agent>,
    method: &str,
    framing: Framing,
    call: &mut Call,
) -> Option<Response<Body>> {
    let codec = call.codec;
    Some(match (method, framing) {
        ("List", Framing::Unary) => reply::unary(codec, list(agent, call).await),
        ("Update", Framing::Unary) => reply::unary(codec, update(agent, call).await),
        ("SendInput", Framing::Unary) => reply::unary(codec, send_input(agent, call).await),
        ("SendSignal", Framing::Unary) => reply::unary(codec, send_signal(agent, call).await),
        ("CloseStdin", Framing::Unary) => reply::unary(codec, close_stdin(agent, call).await),
        ("StreamInput", Framing::Stream) => reply::single(codec, stream_input(agent, call).await),
        ("Start", Framing::Stream) => match start(agent, call).await {
            Ok(events) => reply::stream(codec, events),
            Err(error) => reply::error(framing, codec, &error),
        },
        ("Connect", Framing::Stream) => match connect(agent, call).await {
            Ok(events) => reply::stream(codec, events),
            Err(error) => reply::error(framing, codec, &error),
        },
        _ => return None,
    })
}

async fn list(agent: &Agent, call: &mut Call) -> Result<proto::ListResponse, ConnectError> {
    call.unary::<proto::ListRequest>().await?;
    Ok(proto::ListResponse { processes: agent.processes.list() })
}

async fn start(agent: &Agent, call: &mut Call) -> Result<Events<proto::StartResponse>, ConnectError> {
    let request: proto::StartRequest = call.only().await?;
    let (user, default_directory) = agent.rpc_user(&call.parts.headers)?;
    let config = request.process.ok_or_else(|| ConnectError::invalid_argument("the request names no process"))?;
    let launch = Launch {
        config,
        pty: request.pty,
        stdin: request.stdin.unwrap_or(true),
        user,
        default_directory,
        sandbox_environment: lock(&agent.settings).environment.clone(),
    };
    // The deadline is the process's, not the stream's: it holds when the client has gone.
    let deadline = call.timeout()?;
    let tag = request.tag.filter(|tag| !tag.is_empty());
    let (process, subscription) = agent.processes.start(launch, tag, deadline).await?;
    Ok(Events::new(&process, subscription, call.keepalive_interval(), None))
}

async fn connect(agent: &Agent, call: &mut Call) -> Result<Events<proto::ConnectResponse>, ConnectError> {
    let request: proto::ConnectRequest = call.only().await?;
    let process = agent.processes.find(request.process.as_ref())?;
    let subscription = process.subscribe(call.has_flag(REPLAY_HEADER));
    let deadline = call.timeout()?.map(|timeout| Instant::now() + timeout);
    Ok(Events::new(&process, subscription, call.keepalive_interval(), deadline))
}

async fn update(agent: &Agent, call: &mut Call) -> Result<proto::UpdateResponse, ConnectError> {
    let request: proto::UpdateRequest = call.unary().await?;
    let process = agent.processes.find_running(request.process.as_ref())?;
    if let Some(pty) = &request.pty {
        process.resize(pty)?;
    }
    Ok(proto::UpdateResponse {})
}

async fn write(process: &Process, input: Option<proto::ProcessInput>) -> Result<(), ConnectError> {
    match input.and_then(|input| input.input) {
        Some(Input::Stdin(bytes)) => process.write_stdin(&bytes).await,
        Some(Input::Pty(bytes)) => process.write_terminal(&bytes).await,
        None => Err(ConnectError::invalid_argument("the request holds no input: give stdin or pty")),
    }
}

async fn send_input(agent: &Agent, call: &mut Call) -> Result<proto::SendInputResponse, ConnectError> {
    let request: proto::SendInputRequest = call.unary().await?;
    let process = agent.processes.find_running(request.process.as_ref())?;
    write(&process, request.input).await?;
    Ok(proto::SendInputResponse {})
}

async fn stream_input(agent: &Agent, call: &mut Call) -> Result<proto::StreamInputResponse, ConnectError> {
    let mut process = None;
    while let Some(request) = call.next::<proto::StreamInputRequest>().await? {
        match (request.event, &process) {
            (Some(InputEvent::Start(start)), None) => {
                process = Some(agent.processes.find_running(start.process.as_ref())?);
            }
            (Some(InputEvent::Start(_)), Some(_)) => {
                return Err(ConnectError::invalid_argument("the stream has started already"));
            }
            (Some(InputEvent::Data(data)), Some(process)) => write(process, data.input).await?,
            (Some(InputEvent::Data(_)), None) => {
                return Err(ConnectError::invalid_argument("the stream must begin with a start event"));
            }
            (Some(InputEvent::Keepalive(_)) | None, _) => {}
        }
    }
    Ok(proto::StreamInputResponse {})
}

fn signal(number: i32) -> Result<Signal, ConnectError> {
    let signal = match proto::Signal::try_from(number) {
        Ok(proto::Signal::Sighup) => Signal::HUP,
        Ok(proto::Signal::Sigint) => Signal::INT,
        Ok(proto::Signal::Sigquit) => Signal::QUIT,
        Ok(proto::Signal::Sigkill) => Signal::KILL,
        Ok(proto::Signal::Sigusr1) => Signal::USR1,
        Ok(proto::Signal::Sigusr2) => Signal::USR2,
        Ok(proto::Signal::Sigterm) => Signal::TERM,
        Ok(proto::Signal::Sigcont) => Signal::CONT,
        Ok(proto::Signal::Sigstop) => Signal::STOP,
        Ok(proto::Signal::Unspecified) | Err(_) => {
            return Err(ConnectError::new(Code::Unimplemented, format!("signal {number} cannot be sent")));
        }
    };
    Ok(signal)
}

async fn send_signal(agent: &Agent, call: &mut Call) -> Result<proto::SendSignalResponse, ConnectError> {
    let request: proto::SendSignalRequest = call.unary().await?;
    let process = agent.processes.find_running(request.process.as_ref())?;
    process.signal(signal(request.signal)?)?;
    Ok(proto::SendSignalResponse {})
}

async fn close_stdin(agent: &Agent, call: &mut Call) -> Result<proto::CloseStdinResponse, ConnectError> {
    let request: proto::CloseStdinRequest = call.unary().await?;
    let process = agent.processes.find_running(request.process.as_ref())?;
    process.close_stdin().await?;
    Ok(proto::CloseStdinResponse {})
}

/// The events of a process as a stream: its start first, then output with keepalives between, then its end.
struct Events<M> {
    pid: Option<u32>,
    subscription: Subscription,
    keepalive: Duration,
    /// When the client stops listening.
    deadline: Option<Instant>,
    wrap: std::marker::PhantomData<fn() -> M>,
}

impl<M> Events<M> {
    fn new(process: &Process, subscription: Subscription, keepalive: Duration, deadline: Option<Instant>) -> Self {
        Self { pid: Some(process.pid), subscription, keepalive, deadline, wrap: std::marker::PhantomData }
    }
}

/// `StartResponse` and `ConnectResponse` are the same in all but name.
trait FromEvent {
    fn from_event(event: proto::ProcessEvent) -> Self;
}

impl FromEvent for proto::StartResponse {
    fn from_event(event: proto::ProcessEvent) -> Self {
        Self { event: Some(event) }
    }
}

impl FromEvent for proto::ConnectResponse {
    fn from_event(event: proto::ProcessEvent) -> Self {
        Self { event: Some(event) }
    }
}

fn on_wire(event: Event) -> WireEvent {
    match event {
        Event::End(end) => WireEvent::End(end),
        Event::Output(stream, bytes) => WireEvent::Data(DataEvent {
            output: Some(match stream {
                Stream::Stdout => Output::Stdout(bytes),
                Stream::Stderr => Output::Stderr(bytes),
                Stream::Pty => Output::Pty(bytes),
            }),
        }),
    }
}

impl<M: FromEvent + crate::connect::codec::Message> EventSource for Events<M> {
    type Message = M;

    async fn next(&mut self) -> Option<Result<M, ConnectError>> {
        let message = |event| M::from_event(proto::ProcessEvent { event: Some(event) });
        if let Some(pid) = self.pid.take() {
            return Some(Ok(message(WireEvent::Start(StartEvent { pid }))));
        }
        let keepalive = Instant::now() + self.keepalive;
        let deadline = self.deadline.unwrap_or(keepalive);
        tokio::select! {
            biased;
            // First, so that a process that never stops printing does not keep it from being noticed.
            () = sleep_until(deadline), if self.deadline.is_some() => Some(Err(ConnectError::new(
                Code::DeadlineExceeded,
                "the deadline of this connection has passed; the process goes on",
            ))),
            event = self.subscription.next() => event.map(|event| event.map(|event| message(on_wire(event)))),
            () = sleep_until(keepalive) => Some(Ok(message(WireEvent::Keepalive(KeepAlive {})))),
        }
    }
}
