//! The kinds of modules and components that are functions, and how each is called.

use bytes::Bytes;
use dispatch_api::ErrorType;
use dispatch_runner::adapter::{Call, Log, fault, http, output};
use dispatch_runner::frame::Fault;
use http_body_util::{BodyExt as _, Full};
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use wasmtime::component::{ComponentExportIndex, InstancePre, Linker, Val};
use wasmtime::{Engine, Store};
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::{I32Exit, p2};
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;

use crate::compiled::Code;
use crate::instance::{Settings, State, Streams};

/// The interface of components that are made to be functions: wit/function.wit.
const HANDLER: &str = "dispatch:function/handler@0.1.0";
/// Its function.
const HANDLE: &str = "handle";

/// A module or component that was compiled and has all its imports.
pub enum Kind {
    /// A core module with `_start`: reads a call, writes a result.
    Module(wasmtime::InstancePre<WasiP1Ctx>),
    /// A component that does the same (`wasi:cli/command`).
    Command(CommandPre<State>),
    /// A component that answers HTTP requests (`wasi:http/proxy`).
    Proxy(ProxyPre<State>),
    /// A component with the interface of functions.
    Function(InstancePre<State>, ComponentExportIndex),
}

impl Kind {
    /// Finds out what the code is.
    ///
    /// # Errors
    /// It cannot be called.
    pub fn of(engine: &Engine, code: Code) -> Result<Kind, String> {
        let text = |error: wasmtime::Error| format!("{error:#}");
        let component = match code {
            Code::Component(component) => component,
            Code::Module(module) if module.get_export("_start").is_none() => {
                return Err("the module has no _start: build it as a command for wasi".to_owned());
            }
            Code::Module(module) => {
                let mut linker = wasmtime::Linker::new(engine);
                p1::add_to_linker_async(&mut linker, |state| state).map_err(text)?;
                return linker.instantiate_pre(&module).map(Kind::Module).map_err(text);
            }
        };
        let mut linker = Linker::<State>::new(engine);
        p2::add_to_linker_async(&mut linker).map_err(text)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker).map_err(text)?;
        let handle = component
            .get_export_index(None, HANDLER)
            .and_then(|handler| component.get_export_index(Some(&handler), HANDLE));
        let ready = linker.instantiate_pre(&component).map_err(text)?;
        if let Some(handle) = handle {
            return Ok(Kind::Function(ready, handle));
        }
        if let Ok(proxy) = ProxyPre::new(ready.clone()) {
            return Ok(Kind::Proxy(proxy));
        }
        CommandPre::new(ready).map(Kind::Command).map_err(|_| {
            format!(
                "the component exports none of {HANDLER}, wasi:http/incoming-handler, wasi:cli/run"
            )
        })
    }

    /// Runs a call in an instance of its own.
    ///
    /// # Errors
    /// What it says, or how it ended.
    pub async fn run(&self, settings: &Settings, call: &Call, log: &Log) -> Result<Bytes, Fault> {
        match self {
            Kind::Module(ready) => module(ready, settings, call, log).await,
            Kind::Command(ready) => command(ready, settings, call, log).await,
            Kind::Proxy(ready) => proxy(ready, settings, call, log).await,
            Kind::Function(ready, handle) => function(ready, handle, settings, call, log).await,
        }
    }
}

/// A call as a command reads it.
fn input(call: &Call) -> Bytes {
    let parts = [&b"{\"context\":"[..], &call.context, b",\"payload\":", &call.payload, b"}\n"];
    parts.concat().into()
}

async fn module(
    ready: &wasmtime::InstancePre<WasiP1Ctx>,
    settings: &Settings,
    call: &Call,
    log: &Log,
) -> Result<Bytes, Fault> {
    let (mut world, mut streams) = settings.world(input(call), log).map_err(trapped)?;
    let mut store = Store::new(ready.module().engine(), world.build_p1());
    take_turns(&mut store);
    let ended = async {
        let instance = ready.instantiate_async(&mut store).await?;
        let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
        start.call_async(&mut store, ()).await
    };
    let ended = ended.await;
    drop(store);
    written(ended, settings, &mut streams).await
}

async fn command(
    ready: &CommandPre<State>,
    settings: &Settings,
    call: &Call,
    log: &Log,
) -> Result<Bytes, Fault> {
    let (state, mut streams) = settings.state(input(call), log).map_err(trapped)?;
    let mut store = Store::new(ready.engine(), state);
    take_turns(&mut store);
    let ended = async {
        let command = ready.instantiate_async(&mut store).await?;
        let ended = command.wasi_cli_run().call_run(&mut store).await?;
        ended.map_err(|()| I32Exit(1).into())
    };
    let ended = ended.await;
    drop(store);
    written(ended, settings, &mut streams).await
}

async fn function(
    ready: &InstancePre<State>,
    handle: &ComponentExportIndex,
    settings: &Settings,
    call: &Call,
    log: &Log,
) -> Result<Bytes, Fault> {
    let (state, mut streams) = settings.state(Bytes::new(), log).map_err(trapped)?;
    let mut store = Store::new(ready.engine(), state);
    take_turns(&mut store);
    let text = |bytes: &Bytes| Val::String(String::from_utf8_lossy(bytes).into_owned());
    let mut result = [Val::Bool(false)];
    let ended = async {
        let instance = ready.instantiate_async(&mut store).await?;
        let Some(handle) = instance.get_func(&mut store, handle) else {
            wasmtime::bail!("{HANDLER} has no function {HANDLE}");
        };
        let arguments = [text(&call.context), text(&call.payload)];
        handle.call_async(&mut store, &arguments, &mut result).await
    };
    let ended = ended.await;
    drop(store);
    streams.finish().await;
    ended.map_err(trapped)?;
    let [result] = result;
    match result {
        Val::Result(Ok(Some(value))) => match *value {
            Val::String(text) if text.len() <= settings.result_limit => json(text.into()),
            Val::String(_) => Err(too_much(settings)),
            other => Err(strange(&other)),
        },
        Val::Result(Err(Some(failure))) => match *failure {
            Val::Variant(case, Some(text)) => {
                let Val::String(text) = *text else { return Err(strange(&text)) };
                let kind = match case.as_str() {
                    "input" => ErrorType::InputError,
                    _ => ErrorType::FunctionError,
                };
                Err(fault(kind, text))
            }
            other => Err(strange(&other)),
        },
        other => Err(strange(&other)),
    }
}

async fn proxy(
    ready: &ProxyPre<State>,
    settings: &Settings,
    call: &Call,
    log: &Log,
) -> Result<Bytes, Fault> {
    let (request, came) = http::request(call)?;
    let (state, mut streams) = settings.state(Bytes::new(), log).map_err(trapped)?;
    let mut store = Store::new(ready.engine(), state);
    take_turns(&mut store);
    let (sender, mut receiver) = oneshot::channel();
    let limit = settings.result_limit;
    let ended = async {
        use wasmtime_wasi_http::WasiHttpView as _;
        let request = request.map(Full::new);
        let request = store.data_mut().http().new_incoming_request(Scheme::Http, request)?;
        let response = store.data_mut().http().new_response_outparam(sender)?;
        let proxy = ready.instantiate_async(&mut store).await?;
        proxy.wasi_http_incoming_handler().call_handle(&mut store, request, response).await
    };
    // What it writes is read while it runs: it may wait for that.
    let answer = async {
        let Ok(answer) = (&mut receiver).await else { return None };
        Some(match answer {
            Ok(response) => {
                let (parts, body) = response.into_parts();
                let body = http_body_util::Limited::new(body, limit).collect().await;
                body.map(|body| (parts, body.to_bytes())).map_err(|error| error.to_string())
            }
            Err(code) => Err(format!("{code:?}")),
        })
    };
    let (ended, answer) = tokio::join!(ended, answer);
    drop(store);
    streams.finish().await;
    match answer {
        Some(Ok((parts, body))) => http::result(&parts, &body, came),
        Some(Err(reason)) => {
            Err(fault(ErrorType::FunctionError, format!("the response: {reason}")))
        }
        None => {
            ended.map_err(trapped)?;
            Err(fault(ErrorType::FunctionError, "the component gave no response"))
        }
    }
}

/// Code that runs long lets others go on, and ends where nobody waits for it any more.
fn take_turns<T>(store: &mut Store<T>) {
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);
}

/// What a command that ended so has written, as its result.
async fn written(
    ended: wasmtime::Result<()>,
    settings: &Settings,
    streams: &mut Streams,
) -> Result<Bytes, Fault> {
    streams.finish().await;
    let status = ended.as_ref().err().and_then(|error| error.downcast_ref::<I32Exit>());
    match (ended.as_ref(), status) {
        (Ok(()), _) | (_, Some(I32Exit(0))) => {}
        (_, Some(I32Exit(code))) => {
            let message = format!("the program ended with exit code {code}");
            return Err(fault(output::whose_fault(*code), message));
        }
        _ => ended.map_err(trapped)?,
    }
    let written = streams.output.take().ok_or_else(|| too_much(settings))?;
    output::result(&written)
}

fn json(text: Bytes) -> Result<Bytes, Fault> {
    match serde_json::from_slice::<&RawValue>(&text) {
        Ok(_) => Ok(text),
        Err(error) => {
            Err(fault(ErrorType::FunctionError, format!("the result is not JSON: {error}")))
        }
    }
}

fn too_much(settings: &Settings) -> Fault {
    let message = format!("the result may have at most {} bytes", settings.result_limit);
    fault(ErrorType::FunctionError, message)
}

fn strange(value: &Val) -> Fault {
    let message =
        format!("{HANDLE} of {HANDLER} gave {value:?}: it is not of the interface's type");
    fault(ErrorType::FunctionError, message)
}

/// The instance failed: a trap with where it came from.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn trapped(error: wasmtime::Error) -> Fault {
    let stacktrace = format!("{error:?}").lines().map(str::to_owned).collect();
    let message = format!("the instance failed: {}", error.root_cause());
    Fault { kind: ErrorType::FunctionError, message, stacktrace }
}
