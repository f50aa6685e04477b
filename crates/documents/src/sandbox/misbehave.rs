//! A parser that has gone wrong, in the ways that the parent must survive; only tests and `docmill doctor` ask for it.

use docmill_model::{Code, Failure};

/// Misbehaves in the named way.
///
/// # Errors
/// `FIELD_INVALID` for an unknown way; otherwise the process does not come back, or `write` fails.
pub(super) fn misbehave(how: &str, write: &mut dyn FnMut(&[u8]) -> Result<(), Failure>) -> Result<(), Failure> {
    match how {
        "spin" => spin(),
        "sleep" => loop {
            std::thread::sleep(std::time::Duration::from_secs(3_600));
        },
        "abort" => std::process::abort(),
        "overflow" => overflow(1),
        "panic" => std::panic::resume_unwind(Box::new(())),
        "memory" => {
            let mut hoard: Vec<Vec<u8>> = Vec::new();
            loop {
                hoard.push(vec![1; 8 << 20]);
                std::hint::black_box(&hoard);
            }
        }
        "flood" => loop {
            write(&[b' '; 64 << 10])?;
        },
        _ => Err(Failure::new(Code::FieldInvalid, "no such misbehaviour")),
    }
}

fn spin() -> ! {
    let mut x = 0u64;
    loop {
        x = std::hint::black_box(x.wrapping_mul(3).wrapping_add(1));
    }
}

#[allow(unconditional_recursion, reason = "overflowing the stack is the purpose")]
fn overflow(depth: u64) -> Result<(), Failure> {
    let frame = std::hint::black_box([depth; 64]);
    let below = overflow(frame[0] + 1);
    std::hint::black_box(frame);
    below
}
