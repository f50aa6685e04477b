//! Tests through the real sandboxed child: one binary, so that it is linked once.

mod bad_inputs;
mod corpus;
mod linear;
mod made;
mod mutated;
mod ocr;
mod readings;
mod support;
mod walls;
