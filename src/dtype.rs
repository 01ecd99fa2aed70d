//! Widths of the number formats that configs and users name.

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
