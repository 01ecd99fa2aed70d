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
//! Data goes one way. Effects live at the rim: [`source`] and [`checkpoint`] read, [`cli`] prints; everything between takes
//! values and returns values.
//!
//! A second wing proves the ternary part by running it, and meets the first only in [`cli`] (`run`, `deploy`, `bench-kernel`):
//!
//! ```text
//!  weights --bitlinear--> codes and scales --kernels::packing--> packed layer --kernels--> numbers
//! ```
//!
//! ## Code map, in reading order
//!
//! | level | module | what it is |
//! |---|---|---|
//! | 7 | [`cli`] | arguments, one file per subcommand; the only place that prints |
//! | 6 | [`report`] | one analysis, several formats |
//! | 5 | [`analysis`] | tree and workload in, rows, totals and notes out |
//! | 5 | [`compare`] | two checkpoints side by side: layers, null channels, widths, counts |
//! | 5 | [`check`] | the database held against itself |
//! | 4 | [`flow`] | null channels, read from the `forward` statements |
//! | 4 | [`join`] | the stored form of every tensor laid onto the tree; where the two disagree |
//! | 4 | [`stats`] | what the data of a checkpoint says, as values that are written, read and merged |
//! | 3 | [`model`] | config and database in, frozen tree out; scopes, flow of sizes, explanations |
//! | 3 | [`bitlinear`] | a layer of ternary weights in its three lives: trained, evaluated, deployed |
//! | 2 | [`kernels`] | products of ternary weights and 8-bit activations: packing, one table of kernels, threads, probes, timing |
//! | 2 | [`db`] | entries, overlays, `like`, quantization rules |
//! | 2 | [`checkpoint`] | safetensors headers, validated; shards; mapped data; packed formats as logical weights; their data scanned; files written |
//! | 1 | [`formula`] | the formula language: knows no model |
//! | 1 | [`cost`] | the second derivation: operands with widths, a register of operations, blocks composed of them; knows no database |
//! | 1 | [`memory`] | pools of blocks for weights and tensors: aligned, on large pages, counted by tag; mapped files |
//! | 1 | [`device`] | the machine, as far as the system tells |
//! | 1 | [`source`] | where files come from: a path, the Hub's cache, the embedded catalog, the Hub over HTTP (feature `hub`) |
//! | 0 | [`value`], [`json`], [`units`], [`dtype`], [`float16`], [`glob`], [`channels`], [`bops`] | exact values, their JSON, numbers for people, widths by name, floats of 16 bits, patterns, sets of channels, definitions of bit operations |
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
//! plus one, or an 8-bit activation. **group**: 32 rows of a packing. **probe**: what the machine does at most, measured. One word
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
//! - **`unsafe` stands in [`kernels`], in the function that maps a file and in those that call a loop compiled for wider vectors**,
//!   nowhere else yet.
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
//! The runner of whole BitNet models (pools of memory, tensors, a cache, a tokenizer) is missing; it will stand on [`bitlinear`].
//! Agent-made analyses of unknown modules enter as overlay files: the stub of an unresolved class is their form.

pub mod analysis;
pub mod bitlinear;
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
pub mod memory;
pub mod model;
pub mod report;
pub mod source;
pub mod stats;
pub mod units;
pub mod value;
