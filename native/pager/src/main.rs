//! Everything that is done with a frozen guest's memory outside its engine, one subcommand each. A result is one JSON
//! object on stdout, a failure one on stderr and exit code 1.
mod arguments;
mod capture;
mod fold;
mod inspect;
mod serve;
mod verify;

use std::process::ExitCode;

use memory_image::{Error, ErrorCode, Result};
use serde_json::{Value, json};

use crate::arguments::Arguments;

const USAGE: &str =
    "usage: wrenn-pager capture|fold|verify|inspect|serve OPTIONS (docs/memory-images.md, docs/pager.md)";

fn run() -> Result<Value> {
    let mut arguments = Arguments::from_env();
    match arguments.subcommand()?.as_str() {
        "capture" => capture::run(arguments.options()?),
        "fold" => fold::run(arguments.options()?),
        "inspect" => inspect::run(arguments.options()?),
        "serve" => serve::run(arguments.options()?),
        "verify" => verify::run(arguments.options()?),
        _ => Err(Error::new(ErrorCode::InvalidArguments, USAGE)),
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(result) => {
            println!("{result}");
            ExitCode::SUCCESS
        }
        Err(Error { code, message }) => {
            eprintln!("{}", json!({ "error": { "code": code.name(), "message": message } }));
            ExitCode::FAILURE
        }
    }
}
