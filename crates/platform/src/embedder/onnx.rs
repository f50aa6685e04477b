//! An ONNX graph of a BERT encoder, built from its safetensors.
//!
//! The model comes as weights only, and neither Python nor an ONNX library is at hand when Docmill is set up, so the
//! graph is written here as the protobuf it is (onnx.proto3 of ONNX 1.16: opset 17, and ONNX Runtime's own fused
//! operators `Attention`, `SkipLayerNormalization` and `BiasGelu`). Lengths are written as padded varints and filled in
//! afterwards: weights are copied once. Not here: pooling and normalisation (the embedder's).

use docmill_model::{Code, Failure};
use std::collections::HashMap;

const FLOAT: u64 = 1;
const INT32: i64 = 6;
const INT64: u64 = 7;
/// Bytes of a varint whose value is not known yet; enough for 2^35.
const LENGTH_BYTES: usize = 5;

/// The parts of `config.json` that shape the graph.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
pub struct BertConfig {
    /// Width of the hidden states and of the vectors.
    pub hidden_size: usize,
    num_attention_heads: usize,
    num_hidden_layers: usize,
    layer_norm_eps: f32,
}

fn unusable(what: &str) -> Failure {
    Failure::new(Code::ConfigInvalid, format!("the embedding model cannot be used: {what}"))
}

/// The model as ONNX bytes: inputs `input_ids`, `attention_mask` (int64, batch × tokens), output `last_hidden_state`.
///
/// # Errors
/// `CONFIG_INVALID` when the bytes are no safetensors of such a model.
pub fn build(safetensors: &[u8], config: BertConfig) -> Result<Vec<u8>, Failure> {
    let tensors = Tensors::read(safetensors)?;
    let mut proto = Proto(Vec::with_capacity(safetensors.len() + 64 * 1024));
    proto.varint_field(1, 8); // ir_version
    for (domain, version) in [("", 17), ("com.microsoft", 1)] {
        proto.message(8, |opset| {
            opset.bytes_field(1, domain.as_bytes());
            opset.varint_field(2, version);
            Ok(())
        })?;
    }
    proto.message(7, |graph| {
        graph.bytes_field(2, b"bert");
        graph.value_info(11, "input_ids", INT64, &["batch", "tokens"]);
        graph.value_info(11, "attention_mask", INT64, &["batch", "tokens"]);
        graph.value_info(12, "last_hidden_state", FLOAT, &["batch", "tokens", "hidden"]);
        embeddings(graph, &tensors, config)?;
        (0..config.num_hidden_layers).try_for_each(|layer| encoder_layer(graph, &tensors, config, layer))
    })?;
    Ok(proto.0)
}

fn embeddings(graph: &mut Proto, tensors: &Tensors<'_>, config: BertConfig) -> Result<(), Failure> {
    let (words, positions) = ("embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight");
    // Every text is of the first kind, so that row is added to all positions.
    let kind: Vec<f32> = tensors.floats("embeddings.token_type_embeddings.weight")?.take(config.hidden_size).collect();
    let placed: Vec<f32> = tensors.floats(positions)?.zip(kind.iter().cycle()).map(|(x, kind)| x + kind).collect();
    let shape = |name: &str| tensors.shape(name).map(<[usize]>::to_vec);
    graph.tensor("words", FLOAT, &shape(words)?, |raw| append(raw, tensors.raw(words)?))?;
    graph.tensor("positions", FLOAT, &shape(positions)?, |raw| {
        raw.extend(placed.iter().flat_map(|x| x.to_le_bytes()));
        Ok(())
    })?;
    graph.tensor("zero", INT64, &[1], |raw| append(raw, &0i64.to_le_bytes()))?;
    tensors.copy_into(graph, &["embeddings.LayerNorm.weight", "embeddings.LayerNorm.bias"])?;
    graph.node("Gather", &["words", "input_ids"], "word", &[]);
    graph.node("Shape", &["input_ids"], "length", &[("start", Attribute::Int(1)), ("end", Attribute::Int(2))]);
    graph.node("Slice", &["positions", "zero", "length", "zero"], "position", &[]);
    graph.node("Add", &["word", "position"], "sum", &[]);
    let epsilon = Attribute::Float(config.layer_norm_eps);
    let normal = ["sum", "embeddings.LayerNorm.weight", "embeddings.LayerNorm.bias"];
    graph.node(
        "LayerNormalization",
        &normal,
        &hidden(0, config),
        &[("axis", Attribute::Int(-1)), ("epsilon", epsilon)],
    );
    graph.node("Cast", &["attention_mask"], "mask", &[("to", Attribute::Int(INT32))]);
    Ok(())
}

/// Name of the hidden states that enter layer `layer`.
fn hidden(layer: usize, config: BertConfig) -> String {
    if layer == config.num_hidden_layers { "last_hidden_state".to_owned() } else { format!("hidden.{layer}") }
}

fn encoder_layer(graph: &mut Proto, tensors: &Tensors<'_>, config: BertConfig, layer: usize) -> Result<(), Failure> {
    let name = |part: &str| format!("encoder.layer.{layer}.{part}");
    let [query, key, value] = ["query", "key", "value"].map(|part| name(&format!("attention.self.{part}")));
    let weights = [&query, &key, &value].map(|part| format!("{part}.weight"));
    let biases = [&query, &key, &value].map(|part| format!("{part}.bias"));
    tensors.transposed_into(graph, &name("qkv.weight"), &weights)?;
    graph.tensor(&name("qkv.bias"), FLOAT, &[3 * config.hidden_size], |raw| {
        biases.iter().try_for_each(|bias| append(raw, tensors.raw(bias)?))
    })?;
    let epsilon = [("epsilon", Attribute::Float(config.layer_norm_eps))];
    let dense = |part: &str| (name(&format!("{part}.dense.weight")), name(&format!("{part}.dense.bias")));
    let ((out_w, out_b), (up_w, up_b), (down_w, down_b)) =
        (dense("attention.output"), dense("intermediate"), dense("output"));
    for weight in [&out_w, &up_w, &down_w] {
        tensors.transposed_into(graph, weight, std::slice::from_ref(weight))?;
    }
    let (norm1, norm2) = (name("attention.output.LayerNorm"), name("output.LayerNorm"));
    let [g1, b1, g2, b2] =
        [(&norm1, "weight"), (&norm1, "bias"), (&norm2, "weight"), (&norm2, "bias")].map(|(n, p)| format!("{n}.{p}"));
    tensors.copy_into(graph, &[&out_b, &up_b, &down_b, &g1, &b1, &g2, &b2])?;

    let input = hidden(layer, config);
    let [attended, projected, middle, up, gelu, down] =
        ["attended", "projected", "middle", "up", "gelu", "down"].map(|part| format!("{part}.{layer}"));
    let heads = [("num_heads", Attribute::Int(config.num_attention_heads as i64))];
    graph.node("Attention", &[&input, &name("qkv.weight"), &name("qkv.bias"), "mask"], &attended, &heads);
    graph.node("MatMul", &[&attended, &out_w], &projected, &[]);
    graph.node("SkipLayerNormalization", &[&projected, &input, &g1, &b1, &out_b], &middle, &epsilon);
    graph.node("MatMul", &[&middle, &up_w], &up, &[]);
    graph.node("BiasGelu", &[&up, &up_b], &gelu, &[]);
    graph.node("MatMul", &[&gelu, &down_w], &down, &[]);
    graph.node("SkipLayerNormalization", &[&down, &middle, &g2, &b2, &down_b], &hidden(layer + 1, config), &epsilon);
    Ok(())
}

/// The tensors of a safetensors file: 8 bytes header length, a JSON header, raw little-endian data.
struct Tensors<'a> {
    header: HashMap<String, Tensor>,
    data: &'a [u8],
}

#[derive(serde::Deserialize)]
struct Tensor {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

impl<'a> Tensors<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Failure> {
        let broken = || unusable("model.safetensors is damaged");
        let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(broken)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| broken())?;
        let (header, data) = rest.split_at_checked(length).ok_or_else(broken)?;
        let mut header: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(header).map_err(|_| broken())?;
        header.remove("__metadata__");
        let header = serde_json::from_value(header.into()).map_err(|_| broken())?;
        Ok(Self { header, data })
    }

    fn tensor(&self, name: &str) -> Result<&Tensor, Failure> {
        let found = self.header.get(name).filter(|tensor| tensor.dtype == "F32");
        found.ok_or_else(|| unusable(&format!("it has no 32-bit tensor {name}")))
    }

    fn shape(&self, name: &str) -> Result<&[usize], Failure> {
        Ok(&self.tensor(name)?.shape)
    }

    fn raw(&self, name: &str) -> Result<&'a [u8], Failure> {
        let tensor = self.tensor(name)?;
        let bytes = self.data.get(tensor.data_offsets.0..tensor.data_offsets.1);
        bytes
            .filter(|b| b.len() == 4 * tensor.shape.iter().product::<usize>())
            .ok_or_else(|| unusable("a tensor is cut off"))
    }

    fn floats(&self, name: &str) -> Result<impl Iterator<Item = f32> + 'a, Failure> {
        Ok(self.raw(name)?.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])))
    }

    fn copy_into(&self, graph: &mut Proto, names: &[&str]) -> Result<(), Failure> {
        names.iter().try_for_each(|name| {
            let shape = self.shape(name)?.to_vec();
            graph.tensor(name, FLOAT, &shape, |raw| append(raw, self.raw(name)?))
        })
    }

    /// Matrices of shape out × in, each transposed, side by side: one of shape in × (sum of out).
    fn transposed_into(&self, graph: &mut Proto, name: &str, parts: &[String]) -> Result<(), Failure> {
        let matrices = parts.iter().map(|part| match self.shape(part)? {
            &[out, width] => Ok((self.raw(part)?, out, width)),
            _ => Err(unusable("a weight is not a matrix")),
        });
        let matrices = matrices.collect::<Result<Vec<_>, Failure>>()?;
        let width = matrices.first().map_or(0, |matrix| matrix.2);
        let outs = matrices.iter().map(|matrix| matrix.1).sum();
        graph.tensor(name, FLOAT, &[width, outs], |raw| {
            for column in 0..width {
                for (bytes, _, width) in &matrices {
                    let rows = bytes.chunks_exact(4 * width);
                    rows.for_each(|row| raw.extend_from_slice(&row[4 * column..4 * column + 4]));
                }
            }
            Ok(())
        })
    }
}

fn append(raw: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Failure> {
    raw.extend_from_slice(bytes);
    Ok(())
}

enum Attribute {
    Int(i64),
    Float(f32),
}

/// A protobuf message under construction.
struct Proto(Vec<u8>);

impl Proto {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint_field(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn bytes_field(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, field: u64, fill: impl FnOnce(&mut Self) -> Result<(), Failure>) -> Result<(), Failure> {
        self.varint(field << 3 | 2);
        let start = self.0.len();
        self.0.extend_from_slice(&[0; LENGTH_BYTES]);
        fill(self)?;
        let length = self.0.len() - start - LENGTH_BYTES;
        for (place, byte) in self.0[start..start + LENGTH_BYTES].iter_mut().enumerate() {
            let more = if place + 1 < LENGTH_BYTES { 0x80 } else { 0 };
            *byte = (length >> (7 * place)) as u8 & 0x7f | more;
        }
        Ok(())
    }

    fn nested(&mut self, field: u64, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self(Vec::new());
        fill(&mut inner);
        self.bytes_field(field, &inner.0);
    }

    fn value_info(&mut self, field: u64, name: &str, kind: u64, shape: &[&str]) {
        self.nested(field, |info| {
            info.bytes_field(1, name.as_bytes());
            info.nested(2, |r#type| {
                r#type.nested(1, |tensor| {
                    tensor.varint_field(1, kind);
                    tensor.nested(2, |dims| {
                        shape.iter().for_each(|dim| dims.nested(1, |d| d.bytes_field(2, dim.as_bytes())))
                    });
                });
            });
        });
    }

    fn tensor<F>(&mut self, name: &str, kind: u64, shape: &[usize], fill: F) -> Result<(), Failure>
    where
        F: FnOnce(&mut Vec<u8>) -> Result<(), Failure>,
    {
        self.message(5, |tensor| {
            shape.iter().for_each(|&dim| tensor.varint_field(1, dim as u64));
            tensor.varint_field(2, kind);
            tensor.bytes_field(8, name.as_bytes());
            tensor.message(9, |raw| fill(&mut raw.0))
        })
    }

    fn node(&mut self, operator: &str, inputs: &[&str], output: &str, attributes: &[(&str, Attribute)]) {
        let own = matches!(operator, "Attention" | "SkipLayerNormalization" | "BiasGelu");
        self.nested(1, |node| {
            inputs.iter().for_each(|input| node.bytes_field(1, input.as_bytes()));
            node.bytes_field(2, output.as_bytes());
            node.bytes_field(4, operator.as_bytes());
            for (name, attribute) in attributes {
                node.nested(5, |field| {
                    field.bytes_field(1, name.as_bytes());
                    match attribute {
                        Attribute::Float(value) => {
                            field.varint(2 << 3 | 5);
                            field.0.extend_from_slice(&value.to_le_bytes());
                            field.varint_field(20, 1);
                        }
                        Attribute::Int(value) => {
                            field.varint_field(3, *value as u64);
                            field.varint_field(20, 2);
                        }
                    }
                });
            }
            node.bytes_field(7, if own { b"com.microsoft" } else { b"" });
        });
    }
}
