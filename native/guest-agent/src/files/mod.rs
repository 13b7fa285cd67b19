use std::sync::Arc;
use hyper::{Request, Response, StatusCode, body::Incoming, http::request::Parts};
use crate::{agent::Agent, server::body::{Body, HttpError}};
pub(crate) async fn download(_: &Arc<Agent>, _: Request<Incoming>) -> Result<Response<Body>, HttpError> { Err(HttpError::new(StatusCode::NOT_IMPLEMENTED, "")) }
pub(crate) async fn upload(_: &Arc<Agent>, _: Request<Incoming>) -> Result<Response<Body>, HttpError> { Err(HttpError::new(StatusCode::NOT_IMPLEMENTED, "")) }
pub(crate) async fn compose(_: &Arc<Agent>, _: Parts, _: Incoming) -> Result<Response<Body>, HttpError> { Err(HttpError::new(StatusCode::NOT_IMPLEMENTED, "")) }
