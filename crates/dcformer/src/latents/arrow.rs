//! The Arrow schema of a file of latents, as Parquet keeps it under `ARROW:schema`.
//!
//! Parquet has no lists of one length; Arrow has, and its readers look here. The schema is a message of Arrow's interprocess
//! format, a `FlatBuffers` table, in base64. Only the few types that the file has are written, and nothing is read.
//! Source: `Schema.fbs` and `Message.fbs` of Apache Arrow's format 1.0, and the `FlatBuffers` internals.

use crate::base64::base64;

/// Key in the file's metadata.
pub(super) const KEY: &str = "ARROW:schema";

/// A column with its type.
pub(super) struct Field<'a> {
    pub(super) name: &'a str,
    pub(super) nullable: bool,
    pub(super) kind: Kind,
}

/// Types of columns.
pub(super) enum Kind {
    Text,
    Boolean,
    /// So many float32.
    Floats(usize),
}

/// The schema of a file with these columns, and what else readers are to know: keys with their values.
pub(super) fn schema(fields: &[Field<'_>], metadata: &[(&str, &str)]) -> String {
    /// `MetadataVersion.V5`
    const VERSION: i16 = 4;
    /// `MessageHeader.Schema`
    const SCHEMA: u8 = 1;
    let fields = Node::List(fields.iter().map(Field::node).collect());
    let pair = |(key, value): &(&str, &str)| {
        let texts = [key, value].map(|text| Value::Node(Node::Text((*text).to_owned())));
        Node::Table(texts.into())
    };
    let metadata = Node::List(metadata.iter().map(pair).collect());
    let schema = Node::Table(vec![
        Value::None,
        Value::Node(fields),
        Value::Node(metadata),
    ]);
    let message = Node::Table(vec![
        Value::I16(VERSION),
        Value::U8(SCHEMA),
        Value::Node(schema),
        Value::I64(0),
    ]);
    let mut table = vec![0; 4];
    let root = message.write(&mut table);
    put(&mut table, 0, &(root as u32).to_le_bytes());
    pad(&mut table, 8);
    let mut bytes = vec![0xff; 4];
    bytes.extend((table.len() as u32).to_le_bytes());
    bytes.extend(table);
    base64(&bytes)
}

impl Field<'_> {
    fn node(&self) -> Node {
        /// Of the union `Type`.
        const FLOATING_POINT: u8 = 3;
        const UTF8: u8 = 5;
        const BOOL: u8 = 6;
        const FIXED_SIZE_LIST: u8 = 16;
        /// `Precision.SINGLE`
        const SINGLE: i16 = 1;
        let field = |name: &str, nullable, kind, settings, children| {
            Node::Table(vec![
                Value::Node(Node::Text(name.to_owned())),
                Value::U8(u8::from(nullable)),
                Value::U8(kind),
                Value::Node(Node::Table(settings)),
                Value::None,
                Value::Node(Node::List(children)),
            ])
        };
        let of_kind =
            |kind, settings, children| field(self.name, self.nullable, kind, settings, children);
        match self.kind {
            Kind::Text => of_kind(UTF8, vec![], vec![]),
            Kind::Boolean => of_kind(BOOL, vec![], vec![]),
            Kind::Floats(count) => {
                let single = vec![Value::I16(SINGLE)];
                let element = field("element", false, FLOATING_POINT, single, vec![]);
                let count = i32::try_from(count).expect("a latent has fewer than 2^31 numbers");
                of_kind(FIXED_SIZE_LIST, vec![Value::I32(count)], vec![element])
            }
        }
    }
}

/// What lies at a place of its own.
enum Node {
    /// Fields by their number.
    Table(Vec<Value>),
    Text(String),
    List(Vec<Self>),
}

/// A field of a table.
enum Value {
    /// Left out.
    None,
    U8(u8),
    I16(i16),
    I32(i32),
    I64(i64),
    /// The distance to a node.
    Node(Node),
}

impl Value {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::None => vec![],
            Self::U8(value) => value.to_le_bytes().to_vec(),
            Self::I16(value) => value.to_le_bytes().to_vec(),
            Self::I32(value) => value.to_le_bytes().to_vec(),
            Self::I64(value) => value.to_le_bytes().to_vec(),
            Self::Node(_) => vec![0; 4],
        }
    }
}

impl Node {
    /// Appends the node, and what it refers to behind it; returns where it is.
    fn write(&self, out: &mut Vec<u8>) -> usize {
        match self {
            Self::Text(text) => {
                pad(out, 4);
                let place = out.len();
                out.extend((text.len() as u32).to_le_bytes());
                out.extend(text.as_bytes());
                out.push(0);
                place
            }
            Self::List(nodes) => {
                pad(out, 4);
                let place = out.len();
                out.extend((nodes.len() as u32).to_le_bytes());
                out.resize(out.len() + 4 * nodes.len(), 0);
                for (index, node) in nodes.iter().enumerate() {
                    node.write_referred(out, place + 4 + 4 * index);
                }
                place
            }
            Self::Table(fields) => Self::write_table(fields, out),
        }
    }

    /// Appends the node and puts the distance to it at `reference`.
    fn write_referred(&self, out: &mut Vec<u8>, reference: usize) {
        let place = self.write(out);
        put(out, reference, &((place - reference) as u32).to_le_bytes());
    }

    /// A table is preceded by where its fields are within it, and begins with the distance back to that list.
    fn write_table(fields: &[Value], out: &mut Vec<u8>) -> usize {
        let mut size = 4;
        let mut offsets = Vec::new();
        for field in fields {
            let width = field.bytes().len();
            if width == 0 {
                offsets.push(0);
                continue;
            }
            size = usize::next_multiple_of(size, width);
            offsets.push(size);
            size += width;
        }
        pad(out, 2);
        let list = out.len();
        for number in [4 + 2 * offsets.len(), size].iter().chain(&offsets) {
            out.extend((*number as u16).to_le_bytes());
        }
        // Fields are aligned within the table, and the widest has 8 bytes.
        pad(out, 8);
        let place = out.len();
        out.resize(place + size, 0);
        put(out, place, &((place - list) as i32).to_le_bytes());
        for (field, offset) in fields.iter().zip(&offsets) {
            put(out, place + offset, &field.bytes());
        }
        for (field, offset) in fields.iter().zip(&offsets) {
            if let Value::Node(node) = field {
                node.write_referred(out, place + offset);
            }
        }
        place
    }
}

fn pad(out: &mut Vec<u8>, multiple: usize) {
    out.resize(out.len().next_multiple_of(multiple), 0);
}

fn put(out: &mut [u8], place: usize, bytes: &[u8]) {
    out[place..place + bytes.len()].copy_from_slice(bytes);
}
