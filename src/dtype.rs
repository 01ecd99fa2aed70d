//! Number formats: the widths of those that configs and users name, and those that checkpoints hold.

/// Every name that is understood, with its width in bits.
pub const DTYPES: &[(&str, u32)] = &[
    ("float64", 64),
    ("float32", 32),
    ("float16", 16),
    ("bfloat16", 16),
    ("float8_e4m3fn", 8),
    ("float8_e5m2", 8),
    ("int8", 8),
    ("uint8", 8),
    ("int4", 4),
    ("f64", 64),
    ("f32", 32),
    ("fp32", 32),
    ("f16", 16),
    ("fp16", 16),
    ("half", 16),
    ("bf16", 16),
    ("fp8", 8),
    ("f8", 8),
];

/// The width of a dtype: `bfloat16`, `torch.bfloat16`, `BF16`.
pub fn bits(name: &str) -> Option<u32> {
    let name = name.strip_prefix("torch.").unwrap_or(name);
    DTYPES
        .iter()
        .find(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, bits)| *bits)
}

/// A number format of stored tensors, by the names of the safetensors format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoredType {
    /// Its name: `BF16`.
    pub name: &'static str,
    /// Its width.
    pub bits: u32,
    /// What its codes mean.
    pub kind: NumberKind,
}

/// What the codes of a stored number format mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NumberKind {
    /// Binary floating point, complex numbers included.
    Float,
    /// Two's complement.
    Signed,
    /// Natural numbers.
    Unsigned,
    /// A power of two, without zero: scales of microscaling formats.
    Exponent,
    /// True or false.
    Bool,
}

macro_rules! stored_types {
    ($($name:literal $bits:literal $kind:ident,)*) => {
        /// Every number format that safetensors files may hold.
        pub const STORED_TYPES: &[StoredType] = &[$(StoredType { name: $name, bits: $bits, kind: NumberKind::$kind },)*];
    };
}

stored_types! {
    "F64" 64 Float,
    "F32" 32 Float,
    "F16" 16 Float,
    "BF16" 16 Float,
    "F8_E4M3" 8 Float,
    "F8_E5M2" 8 Float,
    "F8_E4M3FNUZ" 8 Float,
    "F8_E5M2FNUZ" 8 Float,
    "F8_E8M0" 8 Exponent,
    "F6_E2M3" 6 Float,
    "F6_E3M2" 6 Float,
    "F4" 4 Float,
    "C64" 64 Float,
    "I64" 64 Signed,
    "I32" 32 Signed,
    "I16" 16 Signed,
    "I8" 8 Signed,
    "U64" 64 Unsigned,
    "U32" 32 Unsigned,
    "U16" 16 Unsigned,
    "U8" 8 Unsigned,
    "BOOL" 8 Bool,
}

impl StoredType {
    /// The format of a name.
    pub fn named(name: &str) -> Option<StoredType> {
        STORED_TYPES.iter().copied().find(|t| t.name == name)
    }

    /// Whether its numbers are fractions.
    pub fn is_float(self) -> bool {
        self.kind == NumberKind::Float
    }
}

impl std::fmt::Display for StoredType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}
