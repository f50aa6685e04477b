//! Tests through the real sandboxed child: one binary, so that it is linked once.

mod bad_inputs;
mod corpus;
mod made;
mod mutated;
mod ocr;
mod support;
mod walls;
