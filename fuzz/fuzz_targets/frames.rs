//! What a worker sends: whatever the bytes, and however they are cut, decoding them gives the same
//! frames or the same end, and never a panic.
#![no_main]

use dispatch_runner::frame::{Decoder, FromWorker};
use libfuzzer_sys::fuzz_target;

fn frames(chunks: &[&[u8]]) -> (usize, bool) {
    let mut decoder = Decoder::default();
    let mut count = 0;
    for chunk in chunks {
        decoder.extend(chunk);
        loop {
            match decoder.decode::<FromWorker>() {
                Ok(Some(_)) => count += 1,
                Ok(None) => break,
                Err(_) => return (count, true),
            }
        }
    }
    (count, false)
}

fuzz_target!(|data: &[u8]| {
    let cut = data.first().map_or(0, |byte| usize::from(*byte) % data.len());
    let (head, tail) = data.split_at(cut);
    assert_eq!(frames(&[data]), frames(&[head, tail]));
});
