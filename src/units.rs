//! Numbers for people: how they are printed, and how `30T` or `4GiB` is read. No number is formatted anywhere else.

/// `29261612187648` -> `29.26 T`: four significant digits, decimal steps.
pub fn decimal(n: u128) -> String {
    scaled(
        n,
        1000,
        &["", " K", " M", " G", " T", " P", " E", " Z", " Y"],
    )
}

/// `13476831232` -> `12.55 GiB`.
pub fn binary(n: u128) -> String {
    scaled(
        n,
        1024,
        &[
            " B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB", " ZiB", " YiB",
        ],
    )
}

fn scaled(n: u128, step: u128, names: &[&str]) -> String {
    let mut unit: u128 = 1;
    let mut i = 0;
    while i + 1 < names.len() && n / unit >= step {
        unit = unit.saturating_mul(step);
        i += 1;
    }
    if i == 0 {
        return format!("{n}{}", names[0]);
    }
    let value = n as f64 / unit as f64;
    let decimals = if value >= 999.95 {
        0
    } else if value >= 99.995 {
        1
    } else {
        2
    };
    format!("{value:.decimals$}{}", names[i])
}

/// `29261612187648` -> `29,261,612,187,648`.
pub fn grouped(n: u128) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// All digits in a unit of decimal steps: `5451612160` in `G` -> `5.45161216 G`.
pub fn exact(n: u128, unit: char) -> String {
    let places = "KMGTPE".find(unit).map_or(0, |step| 3 * (step + 1));
    let digits = format!("{n:0>width$}", width = places + 1);
    let (whole, fraction) = digits.split_at(digits.len() - places);
    let number = format!("{whole}.{fraction}");
    let number = number.trim_end_matches('0').trim_end_matches('.');
    format!("{number} {unit}")
}

/// `1 parameter`, `1,234 parameters`.
pub fn counted(n: u128, thing: &str) -> String {
    let ending = if n == 1 { "" } else { "s" };
    format!("{} {thing}{ending}", grouped(n))
}

/// Bits that each weight takes, side tensors included: `4.164`.
pub fn bits_per_weight(bytes: u128, weights: u128) -> String {
    if weights == 0 {
        return "-".into();
    }
    let bits = format!("{:.3}", bytes as f64 * 8.0 / weights as f64);
    bits.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// `part` of `whole` in percent: `12.3 %`, `< 0.1 %`.
pub fn share(part: u128, whole: u128) -> String {
    if part == 0 || whole == 0 {
        return "0 %".into();
    }
    let percent = part as f64 / whole as f64 * 100.0;
    if percent < 0.1 {
        "< 0.1 %".into()
    } else {
        format!("{percent:.1} %")
    }
}

/// Reads `7e9`, `30T`, `1.5 G`, `4GiB`, `128KiB`, `1_000`: a whole number of things or bytes.
pub fn parse(text: &str) -> Result<u128, String> {
    const UNITS: [(&str, u128); 19] = [
        ("", 1),
        ("K", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("B", 1),
        ("T", 1_000_000_000_000),
        ("P", 1_000_000_000_000_000),
        ("E", 1_000_000_000_000_000_000),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("KIB", 1 << 10),
        ("MIB", 1 << 20),
        ("GIB", 1 << 30),
        ("TIB", 1 << 40),
        ("PIB", 1 << 50),
        ("BYTES", 1),
        ("PB", 1_000_000_000_000_000),
    ];
    let wrong = || format!("`{text}` is not a number such as 7e9, 30T or 4GiB");
    let compact: String = text
        .chars()
        .filter(|c| !c.is_whitespace() && *c != '_')
        .collect();
    // `1e9` and `7E` differ in what follows the letter.
    let end = compact
        .char_indices()
        .find(|(i, c)| {
            c.is_ascii_alphabetic()
                && !(matches!(c, 'e' | 'E')
                    && compact[i + 1..].starts_with(|n: char| n.is_ascii_digit() || n == '+'))
        })
        .map_or(compact.len(), |(i, _)| i);
    let (number, unit) = compact.split_at(end);
    let factor = UNITS
        .iter()
        .find(|(name, _)| unit.eq_ignore_ascii_case(name))
        .map(|(_, f)| *f)
        .ok_or_else(wrong)?;
    let value = crate::json::exact_number(number).ok_or_else(wrong)?;
    let factor = crate::value::Value::Int(i128::try_from(factor).map_err(|_| wrong())?);
    let product = crate::value::Value::mul(&value, &factor).map_err(|_| wrong())?;
    product
        .as_int()
        .and_then(|n| u128::try_from(n).ok())
        .ok_or_else(wrong)
}

/// Names from files with the characters made visible that could steer a terminal or turn the reading direction.
pub fn visible(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// [`visible`] for at most so many characters of a text that may have any length.
pub fn clipped(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => visible(text),
        Some((at, _)) => format!("{}...", visible(&text[..at])),
    }
}

/// [`visible`] for text whose line breaks are ours.
pub fn visible_lines(text: &str) -> String {
    text.split('\n').map(visible).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_readable() {
        assert_eq!(decimal(999), "999");
        assert_eq!(decimal(29_261_612_187_648), "29.26 T");
        assert_eq!(decimal(6_738_415_616), "6.74 G");
        assert_eq!(binary(13_476_831_232), "12.55 GiB");
        assert_eq!(binary(1023), "1023 B");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(u128::MAX).len(), 51);
        assert_eq!(exact(5_451_612_160, 'G'), "5.45161216 G");
        assert_eq!(exact(624_896, 'M'), "0.624896 M");
        assert_eq!(exact(2_000_000_000, 'G'), "2 G");
        assert_eq!(exact(0, 'M'), "0 M");
    }

    #[test]
    fn limits_are_read_as_people_write_them() {
        assert_eq!(parse("7e9"), Ok(7_000_000_000));
        assert_eq!(parse("30T"), Ok(30_000_000_000_000));
        assert_eq!(parse("1.5 g"), Ok(1_500_000_000));
        assert_eq!(parse("4GiB"), Ok(4 << 30));
        assert_eq!(parse("128KiB"), Ok(131_072));
        assert_eq!(parse("2E"), Ok(2_000_000_000_000_000_000));
        assert!(parse("1.0000000001").is_err());
        assert!(parse("many").is_err());
        assert!(parse("-3").is_err());
    }

    #[test]
    fn control_characters_become_visible() {
        assert_eq!(visible("a\u{1b}[31mb"), "a\\u{1b}[31mb");
        assert_eq!(visible("größe"), "größe");
    }
}
