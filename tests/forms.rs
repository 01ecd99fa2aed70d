//! The forms in which files hold ternary weights: bytes worked out by hand, round trips of any size, what is refused.

mod common;

use bitcost::checkpoint::Checkpoint;
use bitcost::checkpoint::packed::{Settings, weights};
use bitcost::checkpoint::scan::{Wanted, values};
use bitcost::kernels::packing::{bitlab, gguf, hf};
use bitcost::kernels::{KernelError, Packed, Packing};
use bitcost::source::{Files, Folder};
use common::fixture;
use gguf::{Blocks, Order};
use proptest::prelude::*;
use std::path::Path;

/// Eight rows of four weights, `clamp(round(w / mean|w|), -1, 1)` of a matrix with the mean magnitude 0.4753125.
const EXAMPLE: [[i8; 4]; 8] = [
    [1, 0, 1, -1],
    [0, 1, -1, 1],
    [-1, 0, 1, 0],
    [1, -1, 0, 1],
    [1, -1, 0, 0],
    [-1, 1, -1, 1],
    [1, 1, -1, -1],
    [1, 0, 0, 0],
];

fn example(row: usize, out: &mut [i8]) {
    out.copy_from_slice(&EXAMPLE[row]);
}

/// All rows that a reader gives.
fn read(rows: usize, cols: usize, row: impl Fn(usize, &mut [i8])) -> Vec<i8> {
    // What a reader does not write is no weight.
    let mut weights = vec![9; rows * cols];
    for (number, out) in weights.chunks_exact_mut(cols).enumerate() {
        row(number, out);
    }
    weights
}

#[test]
fn transformers_form_is_strided_over_rows() {
    let bytes = hf::write(8, 4, example).expect("ternary");
    // Column 0: rows 0, 2, 4, 6 have the codes 2, 0, 2, 2: 2 + 0 * 4 + 2 * 16 + 2 * 64 = 162.
    assert_eq!(bytes, [162, 133, 26, 20, 137, 98, 68, 106]);
    let form = hf::Form::new(8, 4, &bytes).expect("its own bytes");
    assert_eq!(read(8, 4, |row, out| form.row(row, out)), EXAMPLE.concat());
}

#[test]
fn rows_beyond_the_matrix_are_written_as_0_and_not_read() {
    // Five rows: two lines, and rows 5, 6, 7 are none. transformers' pack_weights leaves their bits 0 too.
    let bytes = hf::write(5, 4, example).expect("ternary");
    assert_eq!(bytes[..4], [0b10_00_10, 0b00_01_01, 0b01_10_10, 0b01_01_00]);
    assert_eq!(bytes[4..], [0b10_01, 0b00_10, 0b01_00, 0b10_10]);
    let form = hf::Form::new(5, 4, &bytes).expect("its own bytes");
    let weights = read(5, 4, |row, out| form.row(row, out));
    assert_eq!(weights, EXAMPLE[..5].concat());
    let counts = form.counts();
    // Counted in the first five rows of the example.
    assert_eq!((counts.minus, counts.zero, counts.plus), (5, 7, 8));
    // Whatever a writer leaves beyond the matrix is in no count.
    let full: Vec<u8> = bytes.iter().map(|byte| byte | 0b01_00_00_00).collect();
    let form = hf::Form::new(5, 4, &full).expect("code 1 beyond the matrix");
    assert_eq!(form.counts(), counts);
}

#[test]
fn bitlab_form_holds_neighbouring_inputs() {
    // 1, 0, 1, -1 are the codes 1, 0, 1, 2: 1 + 0 * 4 + 1 * 16 + 2 * 64 = 145.
    let bytes = bitlab::write(8, 4, example).expect("ternary");
    assert_eq!(bytes[..2], [145, 0b01_10_01_00]);
    // Five columns take two bytes; the columns beyond are 0.
    let row = [1, -1, 0, 1, -1];
    let bytes = bitlab::write(1, 5, |_, out| out.copy_from_slice(&row)).expect("ternary");
    assert_eq!(bytes, [0b01_00_10_01, 2]);
    let form = bitlab::Form::new(1, 5, &bytes).expect("its own bytes");
    assert_eq!(read(1, 5, |row, out| form.row(row, out)), row);
}

#[test]
fn tq1_bytes_are_fractions_of_256() {
    // Columns 0, 32, 64, 96, 128 are 1, 0, -1, 0, 1: trits 2 1 0 1 2, the number 2 * 81 + 27 + 3 + 2 = 194, and
    // ceil(194 * 256 / 243) = ceil(204.38) = 205. Elsewhere 0: trits 1 1 1 1 1 are 121, ceil(127.47) = 128.
    // Columns 240, 244, 248, 252 are -1, 1, 1, -1: 0 2 2 0 and then 0 are 2 * 27 + 2 * 9 = 72, ceil(75.85) = 76.
    // The other bytes of four trits are 1 1 1 1 0, 120, ceil(126.42) = 127.
    let mut weights = [0; 256];
    for (column, weight) in [
        (0, 1),
        (64, -1),
        (128, 1),
        (240, -1),
        (244, 1),
        (248, 1),
        (252, -1),
    ] {
        weights[column] = weight;
    }
    let fill = |_, out: &mut [i8]| out.copy_from_slice(&weights);
    let bytes = gguf::write_blocks(Blocks::Tq1, 1, 256, 0.5, fill).expect("a block");
    let mut expected = vec![128; 48];
    expected[0] = 205;
    expected.extend([76, 127, 127, 127]);
    // 0.5 as a float of 16 bits.
    expected.extend([0x00, 0x38]);
    assert_eq!(bytes, expected);
    let form = gguf::Form::new(Blocks::Tq1, 1, 256, &bytes).expect("its own bytes");
    assert_eq!(read(1, 256, |row, out| form.row(row, out)), weights);
    assert_eq!(form.scale(), Some(0.5));
}

#[test]
fn tq1_reads_every_byte_as_its_first_trits() {
    // The trit of the reader is floor(3 * (256 x / 243 mod 1)) of a byte for the number x; by repeated division it is the
    // digit of floor(243 * byte / 256), which holds for bytes that no writer makes too.
    for byte in 0..=255u8 {
        let mut bytes = [0; 54];
        bytes[..52].fill(byte);
        let form = gguf::Form::new(Blocks::Tq1, 1, 256, &bytes).expect("every byte is read");
        let weights = read(1, 256, |row, out| form.row(row, out));
        let mut number = u32::from(byte) * 243 / 256;
        for n in (0..5).rev() {
            let trit = (number % 3) as i8 - 1;
            number /= 3;
            assert_eq!(weights[32 * n], trit, "byte {byte}, trit {n}");
        }
    }
}

#[test]
fn tq2_bytes_hold_columns_32_apart() {
    // Columns 5, 37, 69, 101 are -1, 0, 1, 1: codes 0, 1, 2, 2: 0 + 1 * 4 + 2 * 16 + 2 * 64 = 164. Elsewhere 0x55.
    let mut weights = [0; 256];
    for (column, weight) in [(5, -1), (69, 1), (101, 1), (128 + 31, 1)] {
        weights[column] = weight;
    }
    let fill = |_, out: &mut [i8]| out.copy_from_slice(&weights);
    let bytes = gguf::write_blocks(Blocks::Tq2, 1, 256, -2.0, fill).expect("a block");
    let mut expected = vec![0x55; 64];
    expected[5] = 164;
    expected[32 + 31] = 0x56;
    expected.extend([0x00, 0xc0]);
    assert_eq!(bytes, expected);
}

#[test]
fn i2s_of_zeros_is_the_same_in_all_orders() {
    for order in Order::ALL {
        let zeros = |_, out: &mut [i8]| out.fill(0);
        let bytes = gguf::write_i2s(order, 4, 128, 0.25, zeros).expect("whole blocks");
        assert_eq!(bytes.len(), 4 * 128 / 4 + 32);
        assert!(bytes[..128].iter().all(|byte| *byte == 0x55), "{order:?}");
        assert_eq!(bytes[128..132], 0.25f32.to_le_bytes());
        assert!(bytes[132..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn i2s_orders_differ_in_where_a_weight_stands() {
    // The weight 1 in row 1, column 40, of zeros: code 2 where the others have 1.
    let one = |row: usize, out: &mut [i8]| {
        out.fill(0);
        out[40] = i8::from(row == 1);
    };
    for (order, at, byte) in [
        // Row 1 begins at byte 32; 40 = 32 * 1 + 8, at bits 4 and 5.
        (Order::Blocks128, 32 + 8, 0b01_10_01_01),
        // 40 = 16 * 2 + 8 of block 0 of the row, at bits 2 and 3.
        (Order::Blocks64, 32 + 8, 0b01_01_10_01),
        // Row 1 of the first four, at bits 4 and 5 of byte 40.
        (Order::Rows4, 40, 0b01_10_01_01),
    ] {
        let bytes = gguf::write_i2s(order, 4, 128, 1.0, one).expect("whole blocks");
        for (place, found) in bytes[..128].iter().enumerate() {
            let expected = if place == at { byte } else { 0x55 };
            assert_eq!(*found, expected, "{order:?}, byte {place}");
        }
    }
}

#[test]
fn blocks_of_several_scales_have_no_scale() {
    let fill = |_, out: &mut [i8]| out.fill(1);
    let mut bytes = gguf::write_blocks(Blocks::Tq2, 2, 512, 0.5, fill).expect("blocks");
    let scale = |bytes: &[u8]| {
        let form = gguf::Form::new(Blocks::Tq2, 2, 512, bytes).expect("its own bytes");
        form.scale()
    };
    assert_eq!(scale(&bytes), Some(0.5));
    // Another scale in the last block.
    let end = bytes.len();
    bytes[end - 2..].copy_from_slice(&0x3c00u16.to_le_bytes());
    assert_eq!(scale(&bytes), None);
    let form = gguf::Form::new(Blocks::Tq2, 2, 512, &bytes).expect("its own bytes");
    assert_eq!(form.block_scales(1).collect::<Vec<_>>(), [0.5, 1.0]);
    // A block of zeros may have any.
    bytes[end - 66..end - 2].fill(0x55);
    assert_eq!(scale(&bytes), Some(0.5));
}

#[test]
fn a_matrix_of_zeros_has_the_scale_of_its_first_block() {
    let zeros = |_, out: &mut [i8]| out.fill(0);
    for blocks in [Blocks::Tq1, Blocks::Tq2] {
        let bytes = gguf::write_blocks(blocks, 3, 256, 0.125, zeros).expect("blocks");
        let form = gguf::Form::new(blocks, 3, 256, &bytes).expect("its own bytes");
        assert_eq!(form.scale(), Some(0.125));
    }
}

#[test]
fn code_3_is_refused_with_its_byte() {
    #[track_caller]
    fn check(bytes: &mut [u8], at: usize, read: impl Fn(&[u8]) -> Option<KernelError>) {
        assert!(read(bytes).is_none());
        for wrong in [0b11, 0b1100, 0b11_0000, 0b1100_0000] {
            let before = std::mem::replace(&mut bytes[at], wrong);
            match read(bytes) {
                Some(KernelError::Code { at: named, byte }) => {
                    assert_eq!((named, byte), (at, wrong));
                }
                other => panic!("{other:?}"),
            }
            bytes[at] = before;
        }
    }
    let zeros = |_, out: &mut [i8]| out.fill(0);
    let mut bytes = hf::write(10, 100, zeros).expect("ternary");
    check(&mut bytes, 250, |bytes| hf::Form::new(10, 100, bytes).err());
    let mut bytes = bitlab::write(10, 99, zeros).expect("ternary");
    check(&mut bytes, 3, |bytes| {
        bitlab::Form::new(10, 99, bytes).err()
    });
    let mut bytes = gguf::write_blocks(Blocks::Tq2, 2, 512, 1.0, zeros).expect("blocks");
    check(&mut bytes, 66 + 2, |bytes| {
        gguf::Form::new(Blocks::Tq2, 2, 512, bytes).err()
    });
    for order in Order::ALL {
        let mut bytes = gguf::write_i2s(order, 4, 128, 1.0, zeros).expect("blocks");
        check(&mut bytes, 127, |bytes| {
            gguf::I2s::new(order, 4, 128, bytes).err()
        });
    }
}

#[test]
fn the_bits_11_across_two_codes_are_no_code_3() {
    // 0b01_10_01_10 has neighbouring ones that belong to different codes.
    let bytes = [0b0110_0110; 8];
    hf::Form::new(8, 4, &bytes).expect("codes 2, 1, 2, 1");
}

#[test]
fn what_is_no_ternary_weight_is_not_written() {
    let wrong = |row: usize, out: &mut [i8]| {
        out.fill(0);
        if row == 3 {
            out[17] = 2;
        }
    };
    let forms: [Result<Vec<u8>, KernelError>; 4] = [
        hf::write(9, 256, wrong),
        bitlab::write(9, 256, wrong),
        gguf::write_blocks(Blocks::Tq1, 9, 256, 1.0, wrong),
        gguf::write_i2s(Order::Rows4, 8, 256, 1.0, wrong),
    ];
    for form in forms {
        match form {
            Err(KernelError::NotTernary { row, col, value }) => {
                assert_eq!((row, col, value), (3, 17, 2));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let size = |result: Result<(), KernelError>| match result {
        Err(KernelError::Size { needed, given, .. }) => (needed, given),
        other => panic!("{other:?}"),
    };
    assert_eq!(size(hf::Form::new(9, 4, &[0; 8]).map(drop)), (12, 8));
    assert_eq!(size(bitlab::Form::new(2, 5, &[0; 5]).map(drop)), (4, 5));
    let i2s = gguf::I2s::new(Order::Blocks128, 1, 128, &[0; 32]).map(drop);
    assert_eq!(size(i2s), (64, 32));
    // Three rows are no whole block of four.
    let i2s = gguf::I2s::new(Order::Rows4, 3, 128, &[0; 128]).map(drop);
    assert!(matches!(i2s, Err(KernelError::Size { .. })), "{i2s:?}");
    for (rows, cols) in [(0, 4), (4, 0)] {
        let empty = [
            hf::Form::new(rows, cols, &[]).map(drop),
            bitlab::Form::new(rows, cols, &[]).map(drop),
            hf::write(rows, cols, |_, _| ()).map(drop),
            gguf::write_i2s(Order::Rows4, rows, cols, 1.0, |_, _| ()).map(drop),
        ];
        for result in empty {
            assert!(
                matches!(result, Err(KernelError::Empty { .. })),
                "{result:?}"
            );
        }
    }
    // Products that no machine holds are sizes, not panics.
    let huge = hf::Form::new(usize::MAX, usize::MAX, &[]).map(drop);
    assert_eq!(size(huge), (usize::MAX, 0));
}

#[test]
fn ragged_rows_are_refused() {
    let ragged = |result: Result<(), KernelError>| match result {
        Err(KernelError::Ragged { cols, multiple }) => (cols, multiple),
        other => panic!("{other:?}"),
    };
    let zeros = |_, out: &mut [i8]| out.fill(0);
    for blocks in [Blocks::Tq1, Blocks::Tq2] {
        let read = gguf::Form::new(blocks, 1, 128, &[]).map(drop);
        assert_eq!(ragged(read), (128, 256), "{}", blocks.name());
        let written = gguf::write_blocks(blocks, 1, 300, 1.0, zeros).map(drop);
        assert_eq!(ragged(written), (300, 256));
    }
    for (order, multiple) in [(Order::Blocks128, 128), (Order::Blocks64, 64)] {
        let read = gguf::I2s::new(order, 4, 96, &[0; 128]).map(drop);
        assert_eq!(ragged(read), (96, multiple), "{}", order.name());
        let written = gguf::write_i2s(order, 4, 96, 1.0, zeros).map(drop);
        assert_eq!(ragged(written), (96, multiple));
    }
}

/// A matrix: rows, columns, weights.
fn matrix(
    rows: std::ops::Range<usize>,
    cols: impl Strategy<Value = usize>,
) -> impl Strategy<Value = (usize, usize, Vec<i8>)> {
    let shape = (rows, cols);
    shape.prop_flat_map(|(rows, cols)| {
        let weights = proptest::collection::vec(-1i8..=1, rows * cols);
        (Just(rows), Just(cols), weights)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_matrix_comes_back_from_the_forms_of_any_size(
        (rows, cols, weights) in matrix(1..40, 1usize..70)
    ) {
        let fill = |row: usize, out: &mut [i8]| out.copy_from_slice(&weights[row * cols..][..cols]);
        let bytes = hf::write(rows, cols, fill).expect("ternary");
        let form = hf::Form::new(rows, cols, &bytes).expect("its own bytes");
        prop_assert_eq!(&read(rows, cols, |row, out| form.row(row, out)), &weights);
        let bytes = bitlab::write(rows, cols, fill).expect("ternary");
        let form = bitlab::Form::new(rows, cols, &bytes).expect("its own bytes");
        prop_assert_eq!(&read(rows, cols, |row, out| form.row(row, out)), &weights);
        // The way of a run: a form repacked for the kernels in one pass.
        for packing in Packing::ALL {
            let packed = Packed::pack(packing, rows, cols, |row, out| form.row(row, out));
            let packed = packed.expect("a matrix");
            prop_assert_eq!(&read(rows, cols, |row, out| packed.row(row, out)), &weights);
        }
    }

    #[test]
    fn matrices_of_whole_blocks_come_back_from_the_forms_of_gguf(
        (rows, cols, weights) in matrix(1..9, (1usize..4).prop_map(|blocks| 256 * blocks)),
        scale in -4.0f32..4.0
    ) {
        let fill = |row: usize, out: &mut [i8]| out.copy_from_slice(&weights[row * cols..][..cols]);
        for blocks in [Blocks::Tq1, Blocks::Tq2] {
            let bytes = gguf::write_blocks(blocks, rows, cols, scale, fill).expect("blocks");
            prop_assert_eq!(Some(bytes.len()), blocks.bytes(rows, cols));
            let form = gguf::Form::new(blocks, rows, cols, &bytes).expect("its own bytes");
            prop_assert_eq!(&read(rows, cols, |row, out| form.row(row, out)), &weights);
            // A float of 16 bits keeps 11 bits.
            let kept = form.scale().expect("one scale");
            prop_assert!((kept - scale).abs() <= scale.abs() * 2f32.powi(-11) + 2f32.powi(-25));
        }
    }

    #[test]
    fn matrices_of_whole_blocks_come_back_from_every_order_of_i2s(
        (rows, cols, weights) in matrix(1..4, (1usize..5).prop_map(|blocks| 64 * blocks)),
        scale in -4.0f32..4.0
    ) {
        for order in Order::ALL {
            // Four times the rows and twice the columns fit every order.
            let (rows, cols) = (4 * rows, 2 * cols);
            let fill = |row: usize, out: &mut [i8]| {
                for (col, weight) in out.iter_mut().enumerate() {
                    *weight = weights[(row * cols + col) * 7 % weights.len()];
                }
            };
            let bytes = gguf::write_i2s(order, rows, cols, scale, fill).expect("whole blocks");
            let form = gguf::I2s::new(order, rows, cols, &bytes).expect("its own bytes");
            prop_assert_eq!(read(rows, cols, |row, out| form.row(row, out)), read(rows, cols, fill));
            prop_assert_eq!(form.scale().to_bits(), scale.to_bits());
        }
    }
}

#[test]
fn codes_of_a_checkpoint_are_the_signs_of_its_numbers() {
    for class in ["autobitlinear", "bitlinear"] {
        let folder = fixture(&format!("bitnet_tiny/{class}"));
        let files = Folder::open(Path::new(&folder)).expect("a folder");
        let checkpoint = Checkpoint::open(&files)
            .expect("readable")
            .expect("weights");
        let text = files
            .read("config.json")
            .expect("readable")
            .expect("a config");
        let config = bitcost::json::read(&String::from_utf8(text).expect("text")).expect("JSON");
        let settings = Settings::find(config.as_object(), Some(&files));
        let weights = weights(&checkpoint, &settings.expect("settings"));
        let mut seen = 0;
        for weight in weights
            .weights
            .iter()
            .filter(|weight| weight.scheme == "bitnet")
        {
            let codes = checkpoint.tensor(&weight.name).expect("its codes");
            // The fixture's rows are multiples of four.
            let (rows, cols) = (4 * codes.shape[0] as usize, codes.shape[1] as usize);
            let bytes = checkpoint.data(codes).expect("mapped").bytes;
            let form = hf::Form::new(rows, cols, bytes).expect("codes");
            let mut numbers = Vec::new();
            let told = values(
                &checkpoint,
                weight,
                &Wanted::default(),
                0..rows as u64,
                &mut numbers,
            );
            assert!(told.expect("readable"), "{}", weight.name);
            let signs: Vec<i8> = numbers
                .iter()
                .map(|number| i8::from(*number > 0.0) - i8::from(*number < 0.0))
                .collect();
            assert_eq!(
                read(rows, cols, |row, out| form.row(row, out)),
                signs,
                "{}",
                weight.name
            );
            seen += 1;
        }
        // Seven projections in each of two layers.
        assert_eq!(seen, 14);
    }
}
