//! The bytes between the supervisor and one worker: frames both ways, and its two output pipes.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use dispatch_sandbox::{Child, Exit, Member};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, recv, sendmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::time::{Sleep, sleep, timeout};
use tokio_util::sync::DropGuard;

use super::failure;
use super::process::{Ends, Process};
use crate::call::Failure;
use crate::frame::{self, Decoder, FromWorker, MAX_BODY, Stream, ToWorker, Violation};

/// Room for reading a frame that has not begun.
const READ_ROOM: usize = 16 * 1024;
/// Bytes one pass takes from a pipe, so that a flood does not starve the rest. A pipe holds no more
/// than this, so one pass takes all that was written before it began.
const PIPE_PASS: usize = 1024 * 1024 + 64 * 1024;
/// How long a worker's last frames may take to arrive once it is known to have ended.
const LAST_FRAMES: Duration = Duration::from_millis(200);
/// How long a worker that closed its channel may take to end.
const EXIT_LIMIT: Duration = Duration::from_secs(1);
/// How long a killed worker may take to be gone, after which it is given up.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Takes what a worker writes to its pipes.
pub type Sink<'a> = &'a mut (dyn FnMut(Stream, &[u8]) + Send);

/// Why no further frame comes.
#[derive(Debug)]
pub enum Gone {
    /// The worker closed the channel or ended.
    Closed,
    /// The same, and it had not read all that was sent to it.
    Unread,
    /// It sent something that is no frame.
    Violation(Violation),
}

/// A [`Link`] between two runtimes.
pub struct Detached {
    stream: std::os::unix::net::UnixStream,
    decoder: Decoder,
    outgoing: VecDeque<Bytes>,
    pipes: [Option<OwnedFd>; 2],
    process: Process,
    exit: Option<Exit>,
    guard: Option<DropGuard>,
}

/// The two pipes, as long as they are open.
type Pipes = [(Stream, Option<pipe::Receiver>); 2];

/// The supervisor's end of a worker.
pub struct Link {
    stream: UnixStream,
    decoder: Decoder,
    outgoing: VecDeque<Bytes>,
    pipes: Pipes,
    process: Process,
    exit: Option<Exit>,
    settle: Option<Pin<Box<Sleep>>>,
    /// Whether the pipes are left alone.
    pub pipes_rest: bool,
    /// What is open for it to the outside, as long as it lives.
    pub guard: Option<DropGuard>,
}

impl Link {
    /// Takes over a process that was just started. Needs a tokio runtime.
    pub fn new(child: Child) -> io::Result<Link> {
        let ends = Ends {
            channel: child.channel.try_clone()?,
            stdout: child.stdout.try_clone()?,
            stderr: child.stderr.try_clone()?,
        };
        Link::of(Process::Own(child), ends)
    }

    /// Takes over a process by our ends of its streams.
    pub fn of(process: Process, ends: Ends) -> io::Result<Link> {
        let pipe = pipe::Receiver::from_owned_fd;
        Ok(Link {
            stream: UnixStream::from_std(ends.channel.into())?,
            decoder: Decoder::default(),
            outgoing: VecDeque::new(),
            pipes: [
                (Stream::Stdout, Some(pipe(ends.stdout)?)),
                (Stream::Stderr, Some(pipe(ends.stderr)?)),
            ],
            process,
            exit: None,
            settle: None,
            pipes_rest: false,
            guard: None,
        })
    }

    /// Lets go of the runtime, to go on in another one with [`Link::attach`].
    pub fn detach(self) -> io::Result<Detached> {
        let Link { stream, decoder, outgoing, pipes, process, exit, guard, .. } = self;
        let [(_, stdout), (_, stderr)] = pipes;
        let fd = |pipe: Option<pipe::Receiver>| pipe.map(pipe::Receiver::into_nonblocking_fd);
        let pipes = [fd(stdout).transpose()?, fd(stderr).transpose()?];
        Ok(Detached { stream: stream.into_std()?, decoder, outgoing, pipes, process, exit, guard })
    }

    /// Takes over what another runtime let go of.
    pub fn attach(detached: Detached) -> io::Result<Link> {
        let Detached { stream, decoder, outgoing, pipes, process, exit, guard } = detached;
        let [stdout, stderr] = pipes;
        let pipe = |fd: Option<OwnedFd>| fd.map(pipe::Receiver::from_owned_fd).transpose();
        Ok(Link {
            stream: UnixStream::from_std(stream)?,
            decoder,
            outgoing,
            pipes: [(Stream::Stdout, pipe(stdout)?), (Stream::Stderr, pipe(stderr)?)],
            process,
            exit,
            settle: None,
            pipes_rest: false,
            guard,
        })
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Gives a process with a sandbox of its own back. Nothing of it may be unread.
    pub fn into_child(self) -> Option<Child> {
        match self.process {
            Process::Own(child) => Some(child),
            Process::Forked(_) => None,
        }
    }

    /// Where a path inside its sandbox is for the process.
    pub fn inside(&self, path: &Path) -> PathBuf {
        match &self.process {
            Process::Own(child) => child.inside(path),
            Process::Forked(_) => path.to_owned(),
        }
    }

    /// A process that this one has forked, by its number inside the sandbox.
    pub fn member(&self, pid: i32) -> Option<Member> {
        match &self.process {
            Process::Own(child) => Some(child.member(pid)),
            Process::Forked(_) => None,
        }
    }

    /// Asks for a fork, whose ends of its streams these are. Nothing else may wait to be sent.
    pub async fn send_fork(&self, ends: &[RawFd; 3]) -> io::Result<()> {
        let mut head = BytesMut::new();
        frame::encode(&ToWorker::Fork, 0, &mut head);
        let rights = [ControlMessage::ScmRights(ends)];
        loop {
            self.stream.writable().await?;
            let (fd, flags) = (self.stream.as_raw_fd(), MsgFlags::MSG_NOSIGNAL);
            let send = || {
                let slices = [IoSlice::new(&head)];
                Ok(sendmsg::<UnixAddr>(fd, &slices, &rights, flags, None)?)
            };
            match self.stream.try_io(Interest::WRITABLE, send) {
                Ok(sent) if sent == head.len() => return Ok(()),
                // So short a frame is sent as a whole, or the other side is not well.
                Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a frame without a body. Nothing is lost when the worker is slow: [`Link::poll`] goes on.
    pub fn send(&mut self, header: &ToWorker) {
        self.send_body(header, []);
    }

    /// Sends a call in as many frames as it needs.
    pub fn send_call(
        &mut self,
        id: u64,
        deadline_ms: Option<u64>,
        by: Option<u64>,
        context: &Bytes,
        payload: &Bytes,
    ) {
        let mut rest = [context.clone(), payload.clone()];
        let more = context.len() + payload.len() > MAX_BODY;
        let mut header = ToWorker::Call { id, deadline_ms, context_len: context.len(), more, by };
        loop {
            let first = rest[0].len().min(MAX_BODY);
            let second = rest[1].len().min(MAX_BODY - first);
            let piece = [rest[0].split_to(first), rest[1].split_to(second)];
            self.send_body(&header, piece);
            match rest[0].len() + rest[1].len() {
                0 => break,
                left if left > MAX_BODY => header = ToWorker::Chunk { id },
                _ => header = ToWorker::End { id },
            }
        }
    }

    /// Sends a frame with a body in pieces, of at most [`MAX_BODY`] bytes in all.
    pub fn send_body<const N: usize>(&mut self, header: &ToWorker, body: [Bytes; N]) {
        let mut start = BytesMut::new();
        frame::encode(header, body.iter().map(Bytes::len).sum(), &mut start);
        self.outgoing.push_back(start.freeze());
        self.outgoing.extend(body.into_iter().filter(|piece| !piece.is_empty()));
    }

    /// The next frame. On the way it writes what waits to be sent and hands `sink` what the worker
    /// wrote to its pipes.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        sink: Sink<'_>,
    ) -> Poll<Result<(FromWorker, Bytes), Gone>> {
        if let Poll::Ready(Err(_)) = self.poll_write(cx) {
            return Poll::Ready(Err(Gone::Unread));
        }
        if !self.pipes_rest {
            poll_pipes(&mut self.pipes, cx, sink);
        }
        loop {
            match self.decoder.decode() {
                Ok(Some(frame)) => return Poll::Ready(Ok(frame)),
                Ok(None) => {}
                Err(violation) => return Poll::Ready(Err(Gone::Violation(violation))),
            }
            let buffer = self.decoder.spare(READ_ROOM);
            match pin!(self.stream.read_buf(buffer)).poll(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Gone::Closed)),
                Poll::Ready(Ok(_)) => {}
                // The kernel says so when the other side went away with bytes unread.
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Gone::Unread)),
                Poll::Pending => return self.poll_exit(cx).map(|()| Err(Gone::Closed)),
            }
        }
    }

    /// Ready when the worker has ended though something it left behind still holds the channel.
    fn poll_exit(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.exit.is_none() {
            self.exit = Some(ready!(pin!(self.process.wait()).poll(cx)));
        }
        let settle = self.settle.get_or_insert_with(|| Box::pin(sleep(LAST_FRAMES)));
        settle.as_mut().poll(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            ready!(self.stream.poll_write_ready(cx))?;
            let mut slices = [IoSlice::new(&[]); 8];
            let count = self.outgoing.len().min(slices.len());
            for (slice, piece) in slices.iter_mut().zip(&self.outgoing) {
                *slice = IoSlice::new(piece);
            }
            match self.stream.try_write_vectored(&slices[..count]) {
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(piece) = self.outgoing.front_mut() {
            if piece.len() > written {
                piece.advance(written);
                return;
            }
            written -= piece.len();
            self.outgoing.pop_front();
        }
    }

    /// Hands `sink` all that was written to the pipes until now.
    pub fn drain(&mut self, sink: Sink<'_>) {
        // Most often there is nothing, and one question answers that for both.
        if self.are_empty() {
            return;
        }
        for (stream, slot) in &mut self.pipes {
            // It asks the pipe itself: the runtime may not know yet that there is something.
            let closed = slot.as_ref().is_some_and(|pipe| {
                let read = |buffer: &mut [u8]| Ok(nix::unistd::read(pipe.as_fd(), buffer)?);
                matches!(read_pass(read, *stream, sink), Pass::Closed)
            });
            if closed {
                *slot = None;
            }
        }
    }

    /// Whether the worker has said nothing that was not taken. It asks the socket itself.
    pub fn is_silent(&self) -> bool {
        let mut byte = [0];
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        self.decoder.is_empty()
            && recv(self.stream.as_raw_fd(), &mut byte, flags) == Err(Errno::EAGAIN)
    }

    fn are_empty(&self) -> bool {
        let pipes = self.pipes.iter().filter_map(|(_, pipe)| pipe.as_ref());
        let mut asked: [_; 2] = [None, None];
        for (place, pipe) in asked.iter_mut().zip(pipes) {
            *place = Some(PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
        }
        let [Some(one), Some(two)] = asked else { return false };
        poll(&mut [one, two], PollTimeout::ZERO) == Ok(0)
    }

    /// How the worker ended, after its channel closed; `None` if it lives on.
    async fn exit(&mut self, sink: Sink<'_>) -> Option<Exit> {
        if self.exit.is_none() {
            let Link { pipes, process, .. } = self;
            // One future for all polls: what is dropped is not woken.
            let mut ended = pin!(process.wait());
            let ended = poll_fn(|cx| {
                // Its last words may fill the pipe, and then it cannot end before they are read.
                poll_pipes(pipes, cx, sink);
                ended.as_mut().poll(cx)
            });
            self.exit = timeout(EXIT_LIMIT, ended).await.ok();
        }
        self.exit
    }

    /// Kills the worker and waits until it is gone.
    pub async fn end(&mut self) {
        if self.exit.is_some() {
            return;
        }
        self.process.kill();
        match timeout(KILL_LIMIT, self.process.wait()).await {
            Ok(exit) => self.exit = Some(exit),
            Err(_) => tracing::error!("a killed worker is still there"),
        }
    }

    /// What happened to a worker that is gone, or as good as gone. Afterwards it is gone.
    pub async fn post_mortem(&mut self, gone: Gone, sink: Sink<'_>) -> Failure {
        let exit = match gone {
            Gone::Violation(_) => None,
            Gone::Closed | Gone::Unread => self.exit(sink).await,
        };
        self.end().await;
        self.drain(sink);
        match (gone, exit) {
            (Gone::Violation(violation), _) => failure::protocol(&violation.to_string()),
            (_, Some(exit)) => failure::ended(&exit),
            (_, None) => failure::protocol("it closed its channel and went on"),
        }
    }

    /// Asks the worker to end by closing the channel, and kills it when it does not.
    pub async fn stop(&mut self, sink: Sink<'_>) {
        let _ = self.stream.shutdown().await;
        // Reading on lets it write what it still has to say.
        let farewell = poll_fn(|cx| {
            while ready!(self.poll(cx, sink)).is_ok() {}
            Poll::Ready(())
        });
        let _ = timeout(EXIT_LIMIT, farewell).await;
        if self.exit(sink).await.is_none() {
            self.end().await;
        }
    }
}

fn poll_pipes(pipes: &mut Pipes, cx: &mut Context<'_>, sink: Sink<'_>) {
    for (stream, slot) in pipes {
        while let Some(pipe) = slot
            && pipe.poll_read_ready(cx).is_ready()
        {
            match read_pass(|buffer| pipe.try_read(buffer), *stream, sink) {
                // Now the runtime knows, and the next look at its readiness waits.
                Pass::Empty => {}
                Pass::More => {
                    cx.waker().wake_by_ref();
                    break;
                }
                Pass::Closed => *slot = None,
            }
        }
    }
}

enum Pass {
    Empty,
    More,
    Closed,
}

/// Reads what a pipe holds.
fn read_pass(
    mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    stream: Stream,
    sink: Sink<'_>,
) -> Pass {
    let mut buffer = [0; 8192];
    let mut taken = 0;
    while taken < PIPE_PASS {
        match read(&mut buffer) {
            Ok(0) => return Pass::Closed,
            Ok(count) => {
                sink(stream, &buffer[..count]);
                taken += count;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Pass::Empty,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Pass::Closed,
        }
    }
    Pass::More
}
