//! # bitcost: what a neural network costs
//!
//! bitcost tells what a network costs (FLOPs, MACs, bit operations, memory traffic, bytes) from its config and the headers
//! of its weights, and says how each number came about. This page is the architecture; the README says how to use the program.
//!
//! ## The idea that holds everything together
//!
//! **Rust knows no model. `module_db.json` knows them all.** The program is an interpreter: it reads a config, expands the
//! module tree that the database describes, evaluates the database's formulas on every module, and reports. A new
//! architecture is a few entries in a JSON file (`--module-db FILE` lays them over the embedded ones), never Rust code.
//!
//! ```text
//!  id, folder, file --source--> config --model--> tree --join--> tree --analysis--> Analysis --report--> table | json | ..
//!                          |               ^        ^      ^
//!                          |  module_db.json -db----+-- formula (lex, parse, eval)
//!                          +-> headers --checkpoint--> weights
//! ```
//!
//! Data goes one way. Effects live at the rim: [`source`] and [`checkpoint`] read, [`device`] and [`machine`] look at the machine,
//! [`cli`] prints; everything between takes values and returns values.
//!
//! A second wing proves the ternary part by running it, and meets the first in [`cli`] (`run`, `deploy`, `bench-kernel`) and where
//! a tree says which of its modules is what:
//!
//! ```text
//!  weights --bitlinear--> codes and scales --kernels::packing--> packed layer --kernels--> numbers
//!  entry's `decoder`, tree --bitnet::Plan--> Decoder, of such layers --Session, text--> tokens
//! ```
//!
//! Its numbers lie in [`tensor`]s, those in blocks of [`memory`] (of this machine, or of mapped files), and [`threads`] share
//! the work on them.
//!
//! ## Code map, in reading order
//!
//! | level | module | what it is |
//! |---|---|---|
//! | 7 | [`cli`] | arguments, one file per subcommand; the only place that prints |
//! | 6 | [`report`] | one analysis, several formats |
//! | 5 | [`analysis`] | tree and workload in, rows, totals and notes out |
//! | 5 | [`compare`] | two checkpoints side by side: layers, null channels, widths, counts |
//! | 5 | [`bitnet`] | a whole model of ternary layers at work: plan, weights, cache, attention, output matrix, what steps take |
//! | 5 | [`check`] | the database held against itself |
//! | 4 | [`flow`] | null channels, read from the `forward` statements |
//! | 4 | [`join`] | the stored form of every tensor laid onto the tree; where the two disagree |
//! | 4 | [`stats`] | what the data of a checkpoint says, as values that are written, read and merged |
//! | 3 | [`model`] | config and database in, frozen tree out; scopes, flow of sizes, explanations |
//! | 3 | [`bitlinear`] | a layer of ternary weights in its three lives: trained, evaluated, deployed |
//! | 3 | [`machine`] | what this machine reaches at most: the probes, measured once and kept |
//! | 2 | [`kernels`] | products of ternary weights and 8-bit activations: packing, one table of kernels, threads, probes, timing |
//! | 2 | [`db`] | entries, overlays, `like`, quantization rules |
//! | 2 | [`checkpoint`] | safetensors headers, validated; shards; mapped data; packed formats as logical weights; their data scanned; files written |
//! | 1 | [`formula`] | the formula language: knows no model |
//! | 1 | [`cost`] | the second derivation: operands with widths, a register of operations, blocks composed of them; knows no database |
//! | 1 | [`tensor`] | shaped views of memory, packed weights among them; sums, norms, gates, products with plain matrices |
//! | 1 | [`device`] | the machine, as far as the system tells: processor, cores, caches, memory, pages |
//! | 1 | [`text`] | text to tokens and back, chat templates, the choice of the next token: what a runner needs around the numbers |
//! | 1 | [`source`] | where files come from: a path, the Hub's cache, the embedded catalog, the Hub over HTTP (feature `hub`) |
//! | 0 | [`value`], [`json`], [`units`], [`dtype`], [`float16`], [`glob`], [`channels`], [`bops`], [`random`] | exact values, their JSON, numbers for people, widths by name, floats of 16 bits, patterns, sets of channels, definitions of bit operations, numbers of a seed |
//! | 0 | [`memory`], [`threads`], `wide` | pools of blocks for weights and tensors: aligned, on large pages, counted by tag; mapped files; threads that wait without sleeping; loops compiled for wide vectors |
//!
//! Imports go to smaller levels only, siblings never import each other; `tests/tidy.rs` holds that and lists the few
//! exceptions (such as the did-you-mean of [`formula`], which [`source`] and [`cost`] use too).
//!
//! ## Words
//!
//! **module**: node of the model tree. **entry**: record of the database. **template**: a formula in an entry.
//! **operand**: the tensor that a row multiplies. **row**: one kind of a module's own work. **flow**: the sizes of what
//! passes between modules. **note**: a finding attached to a result. **source**: where files come from. **catalog**: the
//! embedded configs. **head**: length and JSON header of a safetensors file. **weight**: a parameter as the model sees it,
//! however it is stored; **scheme**: how it is. **side tensor**: a scale, zero point or order that codes need. **kernel**: a
//! function that multiplies packed weights; **packing**: how weights lie for it; **form**: how a file has them. **code**: a weight
//! plus one, or an 8-bit activation. **group**: 32 rows of a packing. **probe**: what the machine does at most, measured. **decoder**: a model that can run, loaded;
//! **session**: one at work on a sequence; **step**: a kind of work that it does. **block**: some bytes of a pool; **tag**: what
//! they are for. One word
//! per idea, everywhere: code, JSON, help, README.
//!
//! ## Invariants
//!
//! - **No model is named in Rust.** What depends on an architecture is data.
//! - **Nothing is silently 0.** An unknown name, class, type or size is an error with its place, or a visible row and a note.
//! - **Counts are exact**: checked 128-bit integers and ratios. The two functions that are irrational say so.
//! - **Input never panics us**, and nothing runs for ever: sizes, depths and steps are bounded by named limits.
//! - **Output order is model order**; the same input gives the same bytes, on every machine.
//! - **No number is formatted outside [`units`]**, none is printed outside [`cli`].
//! - **Opening a checkpoint costs its headers**, never its data; data is mapped when it is asked for.
//! - **The Hub's token goes to the endpoint's own origin and nowhere else**, and into no message (`source/hub/client.rs`).
//! - **An output is whole or not there**: it is made beside its place and gets its name at the end.
//! - **All kernels give the same integers**, bit for bit; the scalar one is what they mean (`tests/kernels.rs`).
//! - **A deployed layer cannot be trained again**, and weights do not change under codes that were made of them: both are types.
//! - **What a model takes of memory is known before it is loaded**, and a step for one token takes none (`tests/allocations.rs`).
//! - **`unsafe` stands in [`kernels`], [`memory`], [`threads`], where wide loops are called and where threads write parts of one
//!   slice** (`bitnet/attention.rs`, `tensor/dense.rs`), nowhere else.
//!
//! ## How equal layers are found
//!
//! While an item of a list is expanded, every formula that read the item's index is logged. The next item is the same node
//! if the same sizes flow in and the logged formulas say the same with its index (`model/lists.rs`). So Llama's 32 layers
//! are one node, DeepSeek-V3's 61 are two, and collapsing rows and being fast are one mechanism.
//!
//! ## How to add a model
//!
//! 1. Write entries in a file of your own: start from `bitcost db show LlamaForCausalLM`, take `like` where you can. A
//!    class that nobody describes shows as `unresolved` with a stub to begin with.
//! 2. `bitcost db check FILE` until it finds nothing; `bitcost inspect FOLDER --module-db FILE --explain PATH` shows why a
//!    number is what it is.
//! 3. To ship it: move the entries into `module_db.json`, add a config with its published parameter count to
//!    `src/source/catalog.json` (`tests/catalog.rs` compares them) and torch's figures to `fixtures/oracle`
//!    (`fixtures/README.md`; `tests/oracle.rs` compares them).
//!
//! ## How to add a model that runs
//!
//! An entry whose `decoder` names its modules (paths below the root, and below a layer) and the numbers of its arithmetic runs,
//! if all its layers are ternary, its norms RMS norms, its positions plain rotary ones and its gate one of
//! [`tensor::ops::Activation`]; `bitcost db show BitNetForCausalLM` is an example. Its numbers have to be held against another
//! program's: `tests/bitnet.rs` does it for fixtures that transformers computed.
//!
//! ## How to add a template
//!
//! 1. `rows` for what the module does itself (MACs with their operand; elements for the kinds of `$elementwise`), `traffic`
//!    for what it moves, `forward` for what its children get.
//! 2. `flop_analysis` with the `thinking_process`: the same number derived a second time; an `example` with numbers worked
//!    out by hand.
//! 3. `bitcost db check`: the two derivations agree on the example and on multiples of its sizes.
//!
//! ## How to add a packed format
//!
//! 1. A fixture that the format's own library wrote: a folder in `fixtures/packed` with `expected.json`, and its function in
//!    `fixtures/packed/make.py`.
//! 2. A row of the table in `checkpoint/packed/formats.rs`: which names make a weight, what its shape is, how wide its codes
//!    are, which code is 0, and by which steps a code becomes a number. `tests/packed.rs` fails until bytes, shape, zeros and
//!    numbers are the library's.
//!
//! ## How to add a kernel, or a form of ternary weights
//!
//! A kernel is a file with two functions and a row of a table: the steps stand in [`kernels`]. A form that files have is a file
//! beside [`kernels::packing`]: check once when it is made, write the weights of a row, and the whole of it the other way round;
//! `tests/forms.rs` holds both against worked examples and each other.
//!
//! ## When files call tensors otherwise
//!
//! `stored_paths`, `stored` and `stored_extra` of an entry say what a class's tensors are called on disk, `$stored` what
//! holds for all models; `tests/stored.rs` holds every oracle model against the names that its library writes and, where
//! they are known, those of the Hub's files (`fixtures/tensors`).
//!
//! ## How to add a report format, a function, a primitive
//!
//! A report format is a file in [`report`] that takes rows and columns. A formula function is a row of
//! [`formula::functions::FUNCTIONS`], a primitive of `forward` a row of [`model::PRIMITIVES`]: name, meaning, code.
//!
//! ## Where the rest will stand
//!
//! Agent-made analyses of unknown modules enter as overlay files: the stub of an unresolved class is their form.

pub mod analysis;
pub mod bitlinear;
pub mod bitnet;
pub mod bops;
pub mod channels;
pub mod check;
pub mod checkpoint;
pub mod cli;
pub mod compare;
pub mod cost;
pub mod db;
pub mod device;
pub mod dtype;
pub mod float16;
pub mod flow;
pub mod formula;
pub mod glob;
pub mod join;
pub mod json;
pub mod kernels;
pub mod machine;
pub mod memory;
pub mod model;
pub mod random;
pub mod report;
pub mod source;
pub mod stats;
pub mod tensor;
pub mod text;
pub mod threads;
pub mod units;
pub mod value;
mod wide;
