//! WebAssembly functions: an adapter that holds an engine. It is started in the sandbox of one
//! function, like the interpreter of any other language, and makes a fresh instance for every call.

mod compiled;
mod engine;
mod instance;
mod kind;
mod outgoing;
mod output;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use dispatch_api::ErrorType;
use dispatch_runner::adapter::{self, Adapter, Call, Init, Loaded, Log, fault};
use dispatch_runner::frame::Fault;
use futures_util::future::BoxFuture;

use self::kind::Kind;
use self::outgoing::Outgoing;

/// Serves functions that are WebAssembly, until the supervisor closes the channel; or compiles one:
/// `build SOURCE OUTPUT HANDLER`.
///
/// # Errors
/// No engine can be made here, what is wrong with the source, or the channel's, as a text.
pub fn serve(words: &[String]) -> Result<(), String> {
    let engine = engine::new().map_err(|error| error.to_string())?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [] => adapter::run(|| Wasm { engine }),
        ["build", source, output, handler] => {
            compiled::build(&engine, Path::new(source), Path::new(output), handler)
        }
        _ => Err(format!("{words:?} mean nothing here")),
    }
}

/// Finds the module or component of a source.
struct Wasm {
    engine: wasmtime::Engine,
}

/// One that is ready for calls.
struct Ready {
    handler: String,
    kind: Kind,
    settings: instance::Settings,
    ticker: engine::Ticker,
}

impl Adapter for Wasm {
    type Loaded = Ready;

    async fn load(self, init: Init) -> Result<Ready, Fault> {
        let refused = |message: String| fault(ErrorType::FunctionError, message);
        let source = Path::new(&init.source);
        let (handler, _) = compiled::find(source, &init.handler).map_err(refused)?;
        let kind = compiled::load(&self.engine, source, &handler)
            .and_then(|code| Kind::of(&self.engine, code))
            .map_err(|reason| refused(format!("{handler}: {reason}")))?;
        let environment: Vec<_> = init.environment.into_iter().collect();
        let outgoing = Outgoing::new(&environment).map_err(refused)?;
        let settings = instance::Settings {
            outgoing,
            environment,
            source: init.source.into(),
            result_limit: init.result_limit,
        };
        Ok(Ready { handler, kind, settings, ticker: engine::Ticker::new(&self.engine) })
    }
}

impl Loaded for Ready {
    fn handler(&self) -> String {
        self.handler.clone()
    }

    fn call(self: Arc<Self>, call: Call, log: Log) -> BoxFuture<'static, Result<Bytes, Fault>> {
        Box::pin(async move {
            let _ticking = self.ticker.tick();
            self.kind.run(&self.settings, &call, &log).await
        })
    }
}
