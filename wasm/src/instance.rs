//! What one instance sees: its streams, variables and files, and the network that its function has.

use std::path::PathBuf;

use bytes::Bytes;
use dispatch_runner::adapter::Log;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::outgoing::Outgoing;
use crate::output::{Errors, Output, Passing};

/// What all instances of a function have in common.
pub struct Settings {
    /// Its variables.
    pub environment: Vec<(String, String)>,
    /// The source's directory, which instances see as `/function`.
    pub source: PathBuf,
    /// Bytes a result may have.
    pub result_limit: usize,
    /// How it reaches others.
    pub outgoing: Outgoing,
}

/// The streams of one instance.
pub struct Streams {
    /// What it writes to its standard output.
    pub output: Output,
    errors: Option<Passing>,
}

/// What a component's instance needs of us.
pub struct State {
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outgoing: Outgoing,
}

impl Settings {
    /// The world of one instance, which reads `input`.
    ///
    /// # Errors
    /// The source or `/tmp` cannot be opened.
    pub fn world(&self, input: Bytes, log: &Log) -> wasmtime::Result<(WasiCtxBuilder, Streams)> {
        let output = Output::new(self.result_limit);
        let (errors, passing) = Errors::new(log);
        let mut world = WasiCtxBuilder::new();
        world
            .envs(&self.environment)
            .arg("function")
            .stdin(MemoryInputPipe::new(input))
            .stdout(output.clone())
            .stderr(errors);
        world.preopened_dir(&self.source, "/function", FsPerms::ReadOnly)?;
        world.preopened_dir(std::env::temp_dir(), "/tmp", FsPerms::ReadWrite)?;
        Ok((world, Streams { output, errors: Some(passing) }))
    }

    /// The same for a component.
    ///
    /// # Errors
    /// As [`Settings::world`].
    pub fn state(&self, input: Bytes, log: &Log) -> wasmtime::Result<(State, Streams)> {
        let (mut world, streams) = self.world(input, log)?;
        let state = State {
            table: ResourceTable::new(),
            wasi: world.build(),
            http: WasiHttpCtx::new(),
            outgoing: self.outgoing.clone(),
        };
        Ok((state, streams))
    }
}

impl Streams {
    /// Waits until what it wrote to its standard error is in the log. Its store must be gone.
    pub async fn finish(&mut self) {
        if let Some(errors) = self.errors.take() {
            errors.finish().await;
        }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.outgoing }
    }
}
