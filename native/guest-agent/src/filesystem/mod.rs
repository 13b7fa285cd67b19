pub(crate) mod watchers {
    #[derive(Default)]
    pub(crate) struct Watchers;
}
use std::sync::Arc;
use hyper::Response;
use crate::{agent::Agent, connect::{Call, call::Framing}, server::body::Body};
pub(crate) async fn call(_: &Arc<Agent>, _: &str, _: Framing, _: Call) -> Option<Response<Body>> { None }
