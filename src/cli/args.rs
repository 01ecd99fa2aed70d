//! What can be typed.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// What a neural network costs: FLOPs, MACs, bit operations, memory traffic and bytes, from its config and the headers of its weights.
#[derive(Parser, Debug)]
#[command(
    name = "bitcost",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 ok, 1 a gate failed, `db check` found something, `run --verify` got other numbers, or a checkpoint is not what its model says under --strict, 2 usage, 3 an input is invalid, 4 unresolved modules under --strict, 130 interrupted."
)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// What a model costs, module by module
    Inspect(Box<InspectArgs>),
    /// What a compressed checkpoint saves against its base
    Compare(Box<CompareArgs>),
    /// What blocks cost bit by bit, operation by operation
    Estimate(EstimateArgs),
    /// Write what the data of checkpoints says, tensor by tensor, to compare or merge later
    Stats(StatsArgs),
    /// Join statistics of parts of a checkpoint
    Merge(MergeArgs),
    /// Run a layer through the ternary kernels, beside what is predicted for it
    Run(Box<RunArgs>),
    /// Check and time the ternary kernels of this machine
    BenchKernel(BenchKernelArgs),
    /// Pack the linear layers of a float checkpoint into ternary ones
    Deploy(DeployArgs),
    /// What this machine has and reaches: cores, caches, memory, reads, products
    Device(DeviceArgs),
    /// The module database: look, check, evaluate
    Db(DbArgs),
    /// Models whose configs are embedded
    Catalog(CatalogArgs),
    /// Fetch a model's files from the Hub into its cache
    #[cfg(feature = "hub")]
    Fetch(FetchArgs),
    /// Print the JSON Schema of an output
    Schema(SchemaArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print the manual page
    Man(ManArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bitcost inspect --model-id meta-llama/Llama-2-7b-hf --flops
  bitcost inspect ./my-model --phase decode --past-len 4095 --memory
  bitcost inspect deepseek-ai/DeepSeek-V3 -s 128,2048,32768          one line per length
  bitcost inspect openai-community/gpt2 google/gemma-2b              one line per model
  bitcost inspect Qwen/Qwen2.5-0.5B --source hub --revision main    config and headers from the Hub
  bitcost inspect ./my-model --tokenize prompt.txt                   as many tokens as a text has
  bitcost inspect torchvision/resnet50 --by class --columns macs,share
  bitcost inspect ./my-model --explain model.layers.0.self_attn
  bitcost inspect ./my-model --max-params 7e9 --max-kv-bytes-per-token 128KiB --quiet")]
pub(super) struct InspectArgs {
    /// Models: folders with a config.json, config files, or ids of the Hub or the catalog
    #[arg(value_name = "MODEL")]
    pub models: Vec<String>,
    /// The same, by name
    #[arg(long = "model-id", alias = "model_id", value_name = "MODEL")]
    pub model_ids: Vec<String>,
    /// Root class to use instead of the one that the config names
    #[arg(long, value_name = "CLASS")]
    pub class: Option<String>,
    /// Lay the entries of a file over the module database (repeatable)
    #[arg(long = "module-db", value_name = "FILE")]
    pub module_db: Vec<PathBuf>,
    /// Read the config and no weights beside it
    #[arg(long)]
    pub config_only: bool,

    #[command(flatten)]
    pub source: SourceArgs,
    #[command(flatten)]
    pub workload: WorkloadArgs,
    #[command(flatten)]
    pub shown: ShownArgs,
    #[command(flatten)]
    pub gates: GateArgs,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Source")]
pub(super) struct SourceArgs {
    /// Where to look: auto tries a path, the Hub's cache, the catalog, the Hub, in this order
    #[arg(long, value_name = "SOURCE", default_value = "auto")]
    pub source: SourceArg,
    /// Branch, tag or commit; asks the Hub first, unless the cache holds all of a commit named in full
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<String>,
    /// Ask the Hub, even if the model is here already
    #[arg(long, conflicts_with = "offline")]
    pub refresh: bool,
    /// Never ask the network; HF_HUB_OFFLINE=1 says the same
    #[arg(long)]
    pub offline: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SourceArg {
    /// The first of the others that has the model
    Auto,
    /// A folder or file
    Path,
    /// The Hub's cache on this machine (HF_HOME, HF_HUB_CACHE)
    Cache,
    /// The embedded configs
    Catalog,
    /// The Hub over HTTP (HF_ENDPOINT, HF_TOKEN): config and headers, not the weights
    Hub,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Workload")]
pub(super) struct WorkloadArgs {
    /// Sequences, images or clips at once; several values make a sweep [default: 1]
    #[arg(short = 'b', long, alias = "batch_size", value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    pub batch_size: Vec<u64>,
    /// New tokens (encoder tokens, audio samples); several values make a sweep [default: min(2048, position limit), 1 in decode]
    #[arg(short = 's', long, alias = "seq_len", value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    pub seq_len: Vec<u64>,
    /// Take the sequence length from a text: the tokens of a file, or of standard input (-)
    #[arg(long, value_name = "FILE", conflicts_with = "seq_len")]
    pub tokenize: Option<PathBuf>,
    /// Whose tokens: a tokenizer.json, a folder with one, or an id of the Hub [default: the model's own]
    #[arg(long, value_name = "TOKENIZER", requires = "tokenize")]
    pub tokenizer: Option<String>,
    /// Tokens already in the cache [default: 2047 in decode]
    #[arg(long, alias = "past_len", value_name = "N", value_parser = clap::value_parser!(u64).range(0..=1 << 40))]
    pub past_len: Option<u64>,
    /// New tokens of the decoder of an encoder-decoder [default: 1, in train the sequence length]
    #[arg(long, alias = "dec_seq_len", value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    pub dec_seq_len: Option<u64>,
    /// Side of a square image [default: the config's, else 224]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub image_size: Option<u64>,
    /// What the model does [default: prefill for models that generate, else forward]
    #[arg(long)]
    pub phase: Option<PhaseArg>,
    #[command(flatten)]
    pub widths: WidthArgs,
    /// Query-key pairs: all that eager code computes, or those that a causal mask leaves
    #[arg(long, default_value = "full")]
    pub attention: AttentionArg,
    /// Positions whose logits are computed
    #[arg(long, default_value = "all")]
    pub logits: LogitsArg,
    /// All work, or matrix products and convolutions only (FLOPs are then 2 x MACs)
    #[arg(long, default_value = "all")]
    pub count: CountArg,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Report")]
pub(super) struct ShownArgs {
    /// Columns: parameters, MACs, FLOPs
    #[arg(long)]
    pub flops: bool,
    /// Columns: bytes read, written, held
    #[arg(long)]
    pub memory: bool,
    /// Columns: bit operations, by the named definition
    #[arg(long, value_name = "KEY", num_args = 0..=1, require_equals = true, default_missing_value = "product")]
    pub bops: Option<BopsArg>,
    /// Columns by name: class, status, params, weights, macs, flops, share, bops, bops_share, read_weights, read_activations, read_kv, writes, intermediates, traffic, intensity
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub columns: Vec<String>,
    /// Sort rows by a column, largest first
    #[arg(long, value_name = "COLUMN")]
    pub sort: Option<String>,
    /// Rows at most so many levels below the root
    #[arg(long, value_name = "N")]
    pub depth: Option<usize>,
    /// A row for every module instead of one for equal ones
    #[arg(long)]
    pub expand: bool,
    /// Rows whose path matches a pattern with * and ?
    #[arg(long, value_name = "GLOB")]
    pub filter: Option<String>,
    /// Rows that cost nothing too
    #[arg(long)]
    pub all: bool,
    /// Sum over modules of a kind
    #[arg(long, value_name = "WHAT")]
    pub by: Option<ByArg>,
    /// How one module's numbers came about
    #[arg(long, value_name = "PATH")]
    pub explain: Option<String>,
    /// Format of the report
    #[arg(long, default_value = "table")]
    pub format: FormatArg,
    /// Write the report to a file
    #[arg(short = 'o', long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Print nothing but errors and failed gates
    #[arg(long, short = 'q')]
    pub quiet: bool,
    /// Fail with exit code 4 if a module has no entry, with 1 if the checkpoint is not what the model says
    #[arg(long)]
    pub strict: bool,
}

#[derive(Args, Debug)]
#[command(
    next_help_heading = "Gates (exit code 1 and a line on standard error for each that fails)"
)]
pub(super) struct GateArgs {
    /// Most parameters, such as 7e9
    #[arg(long, value_name = "N", value_parser = crate::units::parse)]
    pub max_params: Option<u128>,
    /// Most FLOPs, such as 30T
    #[arg(long, value_name = "N", value_parser = crate::units::parse)]
    pub max_flops: Option<u128>,
    /// Most MACs
    #[arg(long, value_name = "N", value_parser = crate::units::parse)]
    pub max_macs: Option<u128>,
    /// Most bit operations
    #[arg(long, value_name = "N", value_parser = crate::units::parse)]
    pub max_bops: Option<u128>,
    /// Most bytes of weights, such as 4GiB
    #[arg(long, value_name = "BYTES", value_parser = crate::units::parse)]
    pub max_weight_bytes: Option<u128>,
    /// Most bytes of cache held
    #[arg(long, value_name = "BYTES", value_parser = crate::units::parse)]
    pub max_kv_cache_bytes: Option<u128>,
    /// Most bytes of cache per token, such as 128KiB
    #[arg(long, value_name = "BYTES", value_parser = crate::units::parse)]
    pub max_kv_bytes_per_token: Option<u128>,
}

impl GateArgs {
    /// Whether a gate is set.
    pub(super) fn any(&self) -> bool {
        let gates = [
            self.max_params,
            self.max_flops,
            self.max_macs,
            self.max_bops,
            self.max_weight_bytes,
            self.max_kv_cache_bytes,
            self.max_kv_bytes_per_token,
        ];
        gates.iter().any(Option::is_some)
    }
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bitcost compare base.safetensors pruned.safetensors
  bitcost compare base/ gptq/ awq/ --seq-len 128               several against one base
  bitcost compare --only q.safetensors --graph cifar-resnet --input 3x32x32
  bitcost compare base/ q/ --bits bits.json --bops structured --format json
  bitcost compare base/ q/ --min-bop-ratio 4 --quiet           exit code 1 where less is saved
  bitcost compare base.json q.json                             what `bitcost stats` wrote of both")]
pub(super) struct CompareArgs {
    /// The base, then what is compared with it: safetensors files, folders, ids with weights in the cache, what `bitcost stats` wrote
    #[arg(value_name = "BASE COMPRESSED")]
    pub inputs: Vec<String>,
    /// One checkpoint against itself without zeros
    #[arg(long, value_name = "FILE", conflicts_with = "inputs")]
    pub only: Option<String>,
    /// Where layers and their order are known from: auto (config, else names of tensors), none, sequential, a graph of the database, an id of the catalog
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub graph: String,
    /// Input of image models and of `sequential`: channels, height, width
    #[arg(long, value_name = "CxHxW", value_parser = parse_input)]
    pub input: Option<(u64, u64, u64)>,
    /// New tokens of language models, audio samples [default: 1 token, 16000 samples]
    #[arg(short = 's', long, alias = "seq_len", value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    pub seq_len: Option<u64>,
    /// Definition of bit operations, which the MACs of the table go with
    #[arg(long, value_name = "KEY", default_value = "live-nnz", value_parser = parse_bops)]
    pub bops: crate::compare::BopsKey,
    /// When a channel is null: its weights over live inputs are zero, or it is exactly zero after bias and norm
    #[arg(long, value_name = "RULE", default_value = "weights")]
    pub null_rule: NullRuleArg,
    /// Width of activations
    #[arg(long, value_name = "BITS", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub activation_bits: u32,
    /// Widths of the compressed layers: a JSON object of layer and bits
    #[arg(long, value_name = "FILE")]
    pub bits: Option<PathBuf>,
    /// Count plain floats as so many bits, whatever their dtype
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub float_bits: Option<u32>,
    /// Do not take a float tensor of few distinct values for a quantized one
    #[arg(long)]
    pub no_infer_bits: bool,
    /// Compare the layers that both have, and note the others
    #[arg(long)]
    pub allow_missing: bool,
    /// Lay the entries of a file over the module database (repeatable)
    #[arg(long = "module-db", value_name = "FILE")]
    pub module_db: Vec<PathBuf>,
    #[command(flatten)]
    pub source: SourceArgs,
    /// Format of the report
    #[arg(long, default_value = "table")]
    pub format: FormatArg,
    /// Write the report to a file
    #[arg(short = 'o', long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Print nothing but errors and failed gates
    #[arg(long, short = 'q')]
    pub quiet: bool,
    /// Fetch weights of the Hub that are not here into its cache, as `bitcost fetch --weights` does
    #[cfg(feature = "hub")]
    #[arg(long, conflicts_with = "offline", help_heading = "Source")]
    pub download: bool,
    /// Do not compute how far weights are from the base's
    #[arg(long)]
    pub no_errors: bool,
    /// Largest relative error of a layer's weights
    #[arg(long, value_name = "RATIO", value_parser = parse_ratio)]
    pub max_relative_error: Option<f64>,
    /// Least ratio of bit operations, base over compressed; exit code 1 below it
    #[arg(long, value_name = "RATIO", value_parser = parse_ratio)]
    pub min_bop_ratio: Option<f64>,
    /// Least ratio of MACs
    #[arg(long, value_name = "RATIO", value_parser = parse_ratio)]
    pub min_mac_ratio: Option<f64>,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Blocks follow each other, each with its options: NAME(OPTION=VALUE, ..) * COUNT. Every block takes precision=
and bias= besides its own options; `bitcost estimate --blocks` lists all of them.

What the original estimator counts otherwise than frameworks do is a named option: bias=added adds biases,
depth_multiplier=1 makes heads of a transformer as deep as usual, norm=false takes the LayerNorm from an lstm,
--bops product counts bit operations of products alone.

Precisions: dense[_W], quantize[_W[_A]] (8 bits), ternary[_A] (weights of 2 bits), SB_P (signed binary, the share P pruned).

Examples:
  bitcost estimate --input 128x32 'mlp(hiddens=[64,64], act=relu)' 'transformer(model_dim=32, heads=4)'
  bitcost estimate --input 128x32 'transformer(heads=4) * 12' --precision quantize_2_8 --bops product
  bitcost estimate --input 128x32 'mlp(hiddens=[64,64]); lstm(hidden=30)' --compare-precision dense,quantize_8,ternary,SB_0.5
  bitcost estimate --input 2048x4096 'decoder(heads=32, kv_heads=8, hidden=14336, precision=ternary)' --format json
  bitcost estimate --file chain.json -o chain.csv --format csv"
)]
pub(super) struct EstimateArgs {
    /// Blocks, one behind the other
    #[arg(value_name = "BLOCK")]
    pub chain: Vec<String>,
    /// Read blocks, and what is not said here, from a JSON file
    #[arg(long, value_name = "FILE", conflicts_with = "chain")]
    pub file: Option<PathBuf>,
    /// Sides of what flows in: positions and features, or channels, height and width, after sides of a batch
    #[arg(long, value_name = "AxB..", value_parser = parse_operand)]
    pub input: Option<crate::cost::Shape>,
    /// Its width [default: 32]
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub input_bits: Option<u32>,
    /// Precision of layers of which nothing else is said [default: dense]
    #[arg(long, value_name = "PRECISION", value_parser = crate::cost::Precision::parse)]
    pub precision: Option<crate::cost::Precision>,
    /// A column for each of these precisions
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = crate::cost::Precision::parse, conflicts_with = "precision")]
    pub compare_precision: Vec<crate::cost::Precision>,
    /// Definition of bit operations: accum, product, density, uniq, psqs [default: accum]
    #[arg(long, value_name = "KEY", value_parser = crate::cost::bops_key)]
    pub bops: Option<crate::bops::BopsKey>,
    /// Biases: stored (and not counted as work), added, none [default: stored]
    #[arg(long, value_name = "WAY", value_parser = crate::cost::Bias::parse)]
    pub bias: Option<crate::cost::Bias>,
    /// Width of accumulators, biases and scales [default: 32]
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub accumulator_bits: Option<u32>,
    /// List the blocks and their options
    #[arg(long)]
    pub blocks: bool,
    /// Format of the report
    #[arg(long, default_value = "table")]
    pub format: FormatArg,
    /// Write the report to a file
    #[arg(short = 'o', long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

fn parse_operand(text: &str) -> Result<crate::cost::Shape, String> {
    let sides: Option<Vec<u64>> = text.split('x').map(|side| side.parse().ok()).collect();
    let wrong = || "an input is sides of 1 or more, such as 128x32 or 3x224x224".to_string();
    crate::cost::Shape::new(&sides.ok_or_else(wrong)?).map_err(|fault| fault.to_string())
}

#[derive(Args, Debug)]
#[command(
    after_help = "All inputs are parts of one checkpoint, unless --jsonl takes each for itself. Any number of threads
writes the same bytes. A weight is told by all of its tensors: where codes and scales lie in
different shards, give both shards in one call; merging such parts is an error.

Examples:
  bitcost stats model.safetensors -o stats.json
  bitcost stats part-1.safetensors part-2.safetensors -o stats.json
  ls shards/*.safetensors | bitcost stats --stdin --jsonl > parts.jsonl     one object per line
  bitcost merge parts.jsonl -o stats.json"
)]
pub(super) struct StatsArgs {
    /// Safetensors files, folders, ids with weights in the cache
    #[arg(value_name = "FILE")]
    pub inputs: Vec<String>,
    /// Read inputs from standard input too, one a line
    #[arg(long)]
    pub stdin: bool,
    /// Each input for itself: one JSON object per line, written as soon as it is known; an input that cannot be read gives a line with `error`, and exit code 3 at the end
    #[arg(long)]
    pub jsonl: bool,
    /// Write to a file
    #[arg(short = 'o', long, value_name = "FILE", conflicts_with = "jsonl")]
    pub output: Option<PathBuf>,
    /// Draw no bar while data is read
    #[arg(long, short = 'q')]
    pub quiet: bool,
    #[command(flatten)]
    pub source: SourceArgs,
}

#[derive(Args, Debug)]
#[command(
    after_help = "The result is what one machine would have written, byte for byte, in whatever order parts come.
A weight in two parts must have the same facts in both.

Examples:
  bitcost merge a.json b.json -o stats.json
  bitcost merge parts.jsonl -o stats.json"
)]
pub(super) struct MergeArgs {
    /// What `bitcost stats` wrote; a file may hold several objects
    #[arg(value_name = "STATS", required = true)]
    pub parts: Vec<PathBuf>,
    /// Write to a file
    #[arg(short = 'o', long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(
    after_help = "A weight becomes codes -1, 0, 1 and one scale, its mean magnitude: codes are rounded weights
over scale, four to a byte, as transformers reads them. A folder becomes a folder that it loads: its
config.json gets a quantization_config, the layers are those of the model that it describes, shards
stay shards, tokenizer and other small files are copied. A file becomes a file; without a
config.json beside it, every matrix called NAME.weight is a layer, unless a word of its name is
embed, embedding, embeddings, emb, wte, wpe, norm, ln or head. Heads, tied weights and layers whose
rows are no multiple of 4 stay as they are. Everything else is copied byte for byte, but for biases
that a class adds before it multiplies the scale: they are divided by it.

Classes: autobitlinear multiplies by the scale and adds the bias before; bitlinear divides by its
reciprocal and adds the bias after.

Examples:
  bitcost deploy ./trained -o ./packed
  bitcost deploy ./trained -o ./packed --linear-class bitlinear --keep '*.mlp.gate_proj'
  bitcost deploy model.safetensors -o packed.safetensors --layers '*.fc1'
  bitcost deploy ./trained -o ./packed --force --format json"
)]
pub(super) struct DeployArgs {
    /// A folder with weights and config.json, a safetensors file, or an id with weights in the cache
    #[arg(value_name = "IN")]
    pub input: String,
    /// The folder or file to write
    #[arg(short = 'o', long, value_name = "OUT")]
    pub output: PathBuf,
    /// Pack only linear layers whose path matches a pattern with * and ? (repeatable)
    #[arg(long, value_name = "PATTERN")]
    pub layers: Vec<String>,
    /// Leave linear layers as they are whose path matches (repeatable)
    #[arg(long, value_name = "PATTERN")]
    pub keep: Vec<String>,
    /// How layers use their scale [default: what the config says, else autobitlinear]
    #[arg(long, value_name = "CLASS")]
    pub linear_class: Option<LinearClassArg>,
    /// Root class to use instead of the one that the config names
    #[arg(long, value_name = "CLASS")]
    pub class: Option<String>,
    /// Replace the output if it exists
    #[arg(long)]
    pub force: bool,
    /// Lay the entries of a file over the module database (repeatable)
    #[arg(long = "module-db", value_name = "FILE")]
    pub module_db: Vec<PathBuf>,
    /// Format of the report
    #[arg(long, default_value = "table")]
    pub format: DbFormat,
    /// Print nothing but errors
    #[arg(long, short = 'q')]
    pub quiet: bool,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Weights that a file holds as ternary codes run as they are. Others are rounded to ternary ones, as BitLinear does.
Without --kernel and --packing a single token takes what is fastest here, found by measuring.
A whole model runs with --prompt, --prompt-file, --ids or --random-weights: its text goes to standard output as it is made,
what it took to standard error. Ctrl-C ends a text and keeps what is there (exit code 130).

Examples:
  bitcost run ./model --prompt 'The weights are' --max-new-tokens 64
  bitcost run --model-id microsoft/bitnet-b1.58-2B-4T --prompt 'Why is the sky blue?' --chat --profile
  bitcost run ./model --prompt-file prompts.txt --temperature 0.7 --top-p 0.9 --seed 1 --format json
  bitcost run --random-weights --config microsoft/bitnet-b1.58-2B-4T --head-bits 8 --profile
  bitcost run ./model --layer model.layers.0.mlp.down_proj
  bitcost run model.safetensors --layer fc1 --tokens 128 --verify
  bitcost run ./model --layer model.layers.0.self_attn.q_proj --input x.safetensors --out y.safetensors
  bitcost run ./model --layer model.layers.3.mlp.up_proj --kernel avx2-2.0 --threads 1 --format json"
)]
pub(super) struct RunArgs {
    /// A folder with weights, a safetensors file, or an id with weights in the cache
    #[arg(value_name = "MODEL", required_unless_present_any = ["model_id", "config"])]
    pub model: Option<String>,
    /// The same, by name
    #[arg(long, value_name = "MODEL", conflicts_with = "model")]
    pub model_id: Option<String>,
    #[command(flatten)]
    pub layer: LayerArgs,
    #[command(flatten)]
    pub text: TextArgs,
    /// Which random numbers: of the input of a layer, of the choice of tokens, of random weights
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// The kernel; `bitcost bench-kernel` lists those that run here
    #[arg(long, value_name = "NAME", env = "BITCOST_KERNEL")]
    pub kernel: Option<String>,
    /// How weights are packed: 2.0 or 1.6 bits each
    #[arg(long, value_name = "BITS", value_parser = parse_packing)]
    pub packing: Option<crate::kernels::Packing>,
    /// Threads [default: all cores]
    #[arg(long, value_name = "T", value_parser = parse_threads)]
    pub threads: Option<usize>,
    /// How the stored scale of ternary codes is meant [default: what the config says]
    #[arg(long, value_name = "CLASS")]
    pub linear_class: Option<LinearClassArg>,
    /// Lay the entries of a file over the module database (repeatable)
    #[arg(long = "module-db", value_name = "FILE")]
    pub module_db: Vec<PathBuf>,
    #[command(flatten)]
    pub source: SourceArgs,
    /// Format of the report
    #[arg(long, default_value = "table")]
    pub format: DbFormat,
    /// Print nothing but errors; of a text, nothing but the text
    #[arg(long, short = 'q')]
    pub quiet: bool,
}

impl RunArgs {
    /// What the model was asked for by.
    pub(super) fn id(&self) -> &str {
        let names = [&self.model, &self.model_id, &self.text.config];
        names
            .into_iter()
            .flatten()
            .next()
            .map_or("", String::as_str)
    }
}

/// One layer.
#[derive(Args, Debug)]
#[command(next_help_heading = "One layer")]
pub(super) struct LayerArgs {
    /// The layer: the name of its weight without `.weight`
    #[arg(long, value_name = "NAME", conflicts_with = "text")]
    pub layer: Option<String>,
    /// Input: a safetensors file with one tensor `[.., in]`, or FILE:NAME
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tokens", "seed", "text"])]
    pub input: Option<String>,
    /// Tokens of an input of normally distributed numbers
    #[arg(long, value_name = "M", default_value_t = 1, value_parser = parse_count, conflicts_with = "text")]
    pub tokens: usize,
    /// Write the output as tensor `y` of a safetensors file
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    pub out: Option<PathBuf>,
    /// Compute the output again with the scalar kernel, and tell what rounding did to weights; exit code 1 if outputs differ
    #[arg(long, conflicts_with = "text")]
    pub verify: bool,
    /// What shares a scale of weights that are rounded: per_tensor, per_row, per_group_N
    #[arg(
        long,
        value_name = "NAME",
        default_value = "per_tensor",
        conflicts_with = "text"
    )]
    pub weight_granularity: String,
    /// What shares a scale of activations: per_token, per_tensor
    #[arg(
        long,
        value_name = "NAME",
        default_value = "per_token",
        conflicts_with = "text"
    )]
    pub activation_granularity: String,
    /// Rows of ternary codes whose last byte is half used
    #[arg(long, value_name = "N", value_parser = parse_count, conflicts_with = "text")]
    pub out_features: Option<usize>,
}

/// A whole model.
#[derive(Args, Debug)]
#[command(
    next_help_heading = "A whole model",
    group = clap::ArgGroup::new("text").multiple(true),
    group = clap::ArgGroup::new("prompts")
)]
pub(super) struct TextArgs {
    /// The text to go on from
    #[arg(long, value_name = "TEXT", groups = ["text", "prompts"])]
    pub prompt: Option<String>,
    /// A file with one prompt a line, each for itself; - is standard input
    #[arg(long, value_name = "FILE", groups = ["text", "prompts"], conflicts_with = "logits")]
    pub prompt_file: Option<PathBuf>,
    /// Tokens to go on from, by number: 1,2,3
    #[arg(long, value_name = "IDS", value_delimiter = ',', groups = ["text", "prompts"])]
    pub ids: Vec<u32>,
    /// Random ternary weights in place of a checkpoint's, for speed at full size; without a prompt 8 tokens are made up
    #[arg(long, group = "text")]
    pub random_weights: bool,
    /// With --random-weights: the config's folder, file or id
    #[arg(long, value_name = "CONFIG", conflicts_with_all = ["model", "model_id"], requires = "random_weights")]
    pub config: Option<String>,
    /// Prompts are what a user says, written as the model's chat template does
    #[arg(long, requires = "text", conflicts_with = "ids")]
    pub chat: bool,
    /// With --chat: what the system says first
    #[arg(long, value_name = "TEXT", requires = "chat")]
    pub system: Option<String>,
    /// Do not begin a prompt with the tokenizer's first token where the tokenizer itself does not
    #[arg(long, requires = "text", conflicts_with_all = ["ids", "chat"])]
    pub no_bos: bool,
    /// Whose tokenizer it is: a folder, a tokenizer.json or an id [default: the model's]
    #[arg(long, value_name = "ID", requires = "text")]
    pub tokenizer: Option<String>,
    /// The most tokens to add to a prompt
    #[arg(long, value_name = "N", default_value_t = 128, requires = "text")]
    pub max_new_tokens: usize,
    /// How freely tokens are chosen; 0 takes the most likely
    #[arg(long, value_name = "T", default_value_t = 0.0, requires = "text")]
    pub temperature: f32,
    /// Choose among the N most likely only
    #[arg(long, value_name = "N", requires = "text")]
    pub top_k: Option<usize>,
    /// Choose among the fewest most likely that have this probability together
    #[arg(long, value_name = "P", default_value_t = 1.0, requires = "text")]
    pub top_p: f32,
    /// Go on where the model would end
    #[arg(long, requires = "text")]
    pub ignore_stop: bool,
    /// Room for tokens [default: the longest prompt and --max-new-tokens, up to what the model is made for]
    #[arg(long, value_name = "N", value_parser = parse_count, requires = "text")]
    pub context: Option<usize>,
    /// Bits of a number of the output matrix: 16 as it is stored, 8 with a scale for each row
    #[arg(long, value_name = "BITS", default_value = "16", requires = "text")]
    pub head_bits: HeadBitsArg,
    /// Bits of a cached key or value
    #[arg(long, value_name = "BITS", default_value = "32", requires = "text")]
    pub kv_bits: KvBitsArg,
    /// The most memory to take, such as 1.5GiB [default: what the machine has left]
    #[arg(long, value_name = "BYTES", requires = "text", value_parser = crate::units::parse)]
    pub max_memory: Option<u128>,
    /// Write the logits of the prompt's tokens as tensor `logits` of a safetensors file
    #[arg(long, value_name = "FILE", requires = "text")]
    pub logits: Option<PathBuf>,
    /// Tell per kind of module what was predicted and what it took
    #[arg(long, requires = "text")]
    pub profile: bool,
}

impl TextArgs {
    /// Whether a whole model is to run.
    pub(super) fn is_asked(&self) -> bool {
        self.prompt.is_some()
            || self.prompt_file.is_some()
            || !self.ids.is_empty()
            || self.random_weights
    }
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadBitsArg {
    #[value(name = "16")]
    Sixteen,
    #[value(name = "8")]
    Eight,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KvBitsArg {
    #[value(name = "32")]
    ThirtyTwo,
    #[value(name = "16")]
    Sixteen,
    #[value(name = "8")]
    Eight,
}

fn parse_count(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|count| *count > 0)
        .ok_or_else(|| "a whole number from 1 on".into())
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinearClassArg {
    /// Weights are scaled after bias: (product + bias) x scale
    Autobitlinear,
    /// Sums of integers are scaled, then the bias is added: product / (scale x activation scale) + bias
    Bitlinear,
}

impl LinearClassArg {
    /// The name that configs have for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            LinearClassArg::Autobitlinear => "autobitlinear",
            LinearClassArg::Bitlinear => "bitlinear",
        }
    }

    /// The class of a name.
    pub(super) fn named(name: &str) -> Option<LinearClassArg> {
        [LinearClassArg::Autobitlinear, LinearClassArg::Bitlinear]
            .into_iter()
            .find(|class| class.name() == name)
    }

    /// What it makes of a stored scale.
    pub(super) fn rule(self) -> crate::bitlinear::Dequantization {
        match self {
            LinearClassArg::Autobitlinear => crate::bitlinear::Dequantization::AutoBitLinear,
            LinearClassArg::Bitlinear => crate::bitlinear::Dequantization::BitLinear,
        }
    }
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NullRuleArg {
    /// All weights over live inputs are zero, whatever bias and norm add
    Weights,
    /// Exactly zero, bias and norm included
    Exact,
}

fn parse_bops(text: &str) -> Result<crate::compare::BopsKey, String> {
    let keys = crate::compare::BopsKey::ALL;
    let found = keys
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, key)| *key);
    found.ok_or_else(|| {
        let names: Vec<&str> = keys.iter().map(|(name, _)| *name).collect();
        format!("the definitions are {}", names.join(", "))
    })
}

/// A limit that a number can fail; nothing is more or less than what is no number.
fn parse_ratio(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ratio) if ratio >= 0.0 && ratio.is_finite() => Ok(ratio),
        _ => Err("a ratio is a number from 0 on, such as 4 or 0.05".into()),
    }
}

fn parse_input(text: &str) -> Result<(u64, u64, u64), String> {
    let sides: Option<Vec<u64>> = text.split('x').map(|side| side.parse().ok()).collect();
    let sides = sides.filter(|sides| sides.iter().all(|side| (1..=1 << 20).contains(side)));
    match sides.as_deref() {
        Some([c, h, w]) => Ok((*c, *h, *w)),
        Some([features]) => Ok((*features, 1, 1)),
        _ => Err(
            "an input is channels x height x width, such as 3x32x32, or a number of features"
                .into(),
        ),
    }
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PhaseArg {
    /// A prompt is processed and leaves its cache
    Prefill,
    /// New tokens follow a cached past
    Decode,
    /// One pass without a cache
    Forward,
    /// Forward and backward
    Train,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttentionArg {
    Full,
    Causal,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogitsArg {
    All,
    Last,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CountArg {
    All,
    Matmul,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BopsArg {
    /// MACs x weight bits x activation bits
    Product,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByArg {
    /// Modules of the same class
    Class,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FormatArg {
    Table,
    Json,
    Csv,
    Markdown,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Each kernel is first held against the scalar one. Ratios stand beside probes that run in the same moments: a
plain read of memory, and the kernel's multiplying instruction alone.

Examples:
  bitcost bench-kernel                                         BitNet-2B-4T and Llama-7B, within 3 minutes
  bitcost bench-kernel --shape 1x2560x6912 --threads 1,2
  bitcost bench-kernel --model-id microsoft/bitnet-b1.58-2B-4T --packing 1.6
  bitcost bench-kernel --shape 128x4096x4096 --kernel avx2-2.0 --baseline --format json"
)]
pub(super) struct BenchKernelArgs {
    /// Products to time: tokens, rows and columns of the weights (repeatable, or separated by commas)
    #[arg(long, value_name = "MxNxK", value_delimiter = ',', value_parser = parse_shape, conflicts_with = "model_id")]
    pub shape: Vec<crate::kernels::measure::Shape>,
    /// Time the linear layers of a model instead
    #[arg(long = "model-id", alias = "model_id", value_name = "MODEL")]
    pub model_id: Option<String>,
    /// Numbers of threads; without, one and all cores
    #[arg(long, value_name = "T", value_delimiter = ',', value_parser = parse_threads)]
    pub threads: Vec<usize>,
    /// Only these kernels (repeatable, or separated by commas)
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        env = "BITCOST_KERNEL"
    )]
    pub kernel: Vec<String>,
    /// Only kernels of a packing: 2.0 or 1.6 bits a weight
    #[arg(long, value_name = "BITS", value_parser = parse_packing)]
    pub packing: Option<crate::kernels::Packing>,
    /// Bytes of weights that cold calls go through, in MiB [default: 512, or four times the last cache]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 14))]
    pub cold_mib: Option<u64>,
    /// Time dense products of another library beside them
    #[arg(long)]
    pub baseline: bool,
    /// Lay the entries of a file over the module database (repeatable)
    #[arg(long = "module-db", value_name = "FILE")]
    pub module_db: Vec<PathBuf>,
    #[command(flatten)]
    pub source: SourceArgs,
    /// Format of the report
    #[arg(long, default_value = "table")]
    pub format: FormatArg,
    /// Write the report to a file
    #[arg(short = 'o', long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Show no progress
    #[arg(long, short = 'q')]
    pub quiet: bool,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Measured are reads of memory, by 1, 2, 4 and so on to all cores, and each instruction that
multiplies bytes, alone. The numbers are kept in the folder for caches (XDG_CACHE_HOME, else
~/.cache) for this processor, as many cores and this version, and told from there next time.

Examples:
  bitcost device
  bitcost device --remeasure                                   after other work has ended
  bitcost device --format json"
)]
pub(super) struct DeviceArgs {
    /// Measure again, even if a measurement is kept
    #[arg(long)]
    pub remeasure: bool,
    /// Format of the report
    #[arg(long, default_value = "table")]
    pub format: DbFormat,
    /// Write the report to a file
    #[arg(short = 'o', long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// More threads than any machine has are a slip.
const MAX_THREADS: usize = 1024;

fn parse_threads(text: &str) -> Result<usize, String> {
    let threads = text
        .parse()
        .ok()
        .filter(|threads| (1..=MAX_THREADS).contains(threads));
    threads.ok_or_else(|| format!("threads are 1 to {MAX_THREADS}"))
}

/// Numbers of the largest matrix that a measurement or a run may hold: two gigabytes of floats.
pub(super) const MAX_NUMBERS: usize = 1 << 29;

fn parse_shape(text: &str) -> Result<crate::kernels::measure::Shape, String> {
    let sizes: Option<Vec<usize>> = text.split('x').map(|size| size.parse().ok()).collect();
    match sizes.as_deref() {
        Some(&[m, n, k]) if m > 0 && n > 0 && k > 0 => {
            let fits = |a: usize, b: usize| a.checked_mul(b).is_some_and(|all| all <= MAX_NUMBERS);
            if !(fits(m, k) && fits(m, n) && fits(n, k)) {
                return Err(format!(
                    "no two sizes of a product may give more than {MAX_NUMBERS} numbers"
                ));
            }
            Ok(crate::kernels::measure::Shape { m, n, k })
        }
        _ => Err("a product is tokens, rows and columns, as 1x2560x6912".into()),
    }
}

fn parse_packing(text: &str) -> Result<crate::kernels::Packing, String> {
    let known = crate::kernels::Packing::ALL;
    let found = known.into_iter().find(|packing| packing.name() == text);
    found.ok_or_else(|| "weights are packed to 2.0 or 1.6 bits".into())
}

fn parse_dtype(text: &str) -> Result<u32, String> {
    crate::dtype::bits(text).ok_or_else(|| {
        let known: Vec<&str> = crate::dtype::DTYPES.iter().map(|(name, _)| *name).collect();
        format!(
            "unknown dtype{}; known: {}",
            crate::formula::did_you_mean(text, known.iter().copied()),
            known.join(", ")
        )
    })
}

#[derive(Args, Debug)]
pub(super) struct DbArgs {
    #[command(subcommand)]
    pub command: DbCommand,
}

#[derive(Subcommand, Debug)]
pub(super) enum DbCommand {
    /// Every entry: path, what it is, whether a person has checked it
    #[command(
        after_help = "Examples:\n  bitcost db list\n  bitcost db list 'transformers.models.llama.*'"
    )]
    List {
        /// Paths that match a pattern with * and ?, or contain the text
        pattern: Option<String>,
        /// Only entries written in the file, not those that families derive
        #[arg(long)]
        written: bool,
        #[command(flatten)]
        common: DbCommon,
    },
    /// One entry, with everything that `like` brings
    #[command(after_help = "Example:\n  bitcost db show Qwen3Attention")]
    Show {
        /// Class name, path or key
        name: String,
        #[command(flatten)]
        common: DbCommon,
    },
    /// Check the database, or a file of entries laid over it
    #[command(
        after_help = "Every finding is printed; the exit code is 1 if there is one.\n\nExamples:\n  bitcost db check\n  bitcost db check my-entries.json"
    )]
    Check {
        /// A file of entries
        file: Option<PathBuf>,
        #[command(flatten)]
        common: DbCommon,
    },
    /// What one module costs under given arguments
    #[command(
        after_help = "Examples:\n  bitcost db eval torch.nn.Linear N=2048 in_features=4096 out_features=4096\n  bitcost db eval torch.nn.Conv2d B=1 H=224 W=224 in_channels=3 out_channels=64 kernel_size=7 stride=2 padding=3 --format json"
    )]
    Eval {
        /// Class name, path or key
        name: String,
        /// Arguments, NAME=VALUE
        arguments: Vec<String>,
        #[command(flatten)]
        widths: WidthArgs,
        #[command(flatten)]
        common: DbCommon,
    },
    /// How that cost comes about, step by step
    #[command(
        after_help = "Example:\n  bitcost db explain LlamaMLP B=1 S=2048 hidden_size=4096 intermediate_size=11008 mlp_bias=False hidden_act=silu"
    )]
    Explain {
        /// Class name, path or key
        name: String,
        /// Arguments, NAME=VALUE
        arguments: Vec<String>,
        #[command(flatten)]
        common: DbCommon,
    },
    /// What an entry is built from, and what uses it
    Deps {
        /// Class name, path or key
        name: String,
        #[command(flatten)]
        common: DbCommon,
    },
    /// The functions of formulas and the primitives of `forward`
    Language,
}

#[derive(Args, Debug)]
pub(super) struct DbCommon {
    /// Lay the entries of a file over the module database (repeatable)
    #[arg(long = "module-db", value_name = "FILE")]
    pub module_db: Vec<PathBuf>,
    /// Format of the answer
    #[arg(long, default_value = "table")]
    pub format: DbFormat,
}

#[derive(Args, Debug)]
pub(super) struct WidthArgs {
    /// Number format of everything that nothing else is said about [default: the config's; 16 bits in `db eval`]
    #[arg(long, value_name = "DTYPE", value_parser = parse_dtype)]
    pub dtype: Option<u32>,
    /// Width of every weight [default: what quantization_config says, else the dtype]
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub weight_bits: Option<u32>,
    /// Width of every activation [default: the dtype; 8 into BitLinear]
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub activation_bits: Option<u32>,
    /// Width of the KV cache [default: the dtype]
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub kv_bits: Option<u32>,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DbFormat {
    Table,
    Json,
}

#[derive(Args, Debug)]
pub(super) struct CatalogArgs {
    /// Models whose id contains this text, in any case
    pub filter: Option<String>,
    /// Format of the list
    #[arg(long, default_value = "table")]
    pub format: DbFormat,
}

#[cfg(feature = "hub")]
#[derive(Args, Debug)]
#[command(
    after_help = "Files go where huggingface_hub has them (HF_HOME, HF_HUB_CACHE), and it finds them there.
What is there already is not fetched again; a transfer that was cut or interrupted goes on
where it ended. The path of the snapshot is printed.

Examples:
  bitcost fetch Qwen/Qwen2.5-0.5B                         config, index, tokenizer: the small files
  bitcost fetch Qwen/Qwen2.5-0.5B --weights               and the safetensors files
  bitcost fetch Qwen/Qwen2.5-0.5B --revision refs/pr/3    of a branch, tag, commit or pull request
  bitcost fetch Qwen/Qwen2.5-0.5B --file '*.md'           only these files"
)]
pub(super) struct FetchArgs {
    /// Id of the model on the Hub
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// The weights too: the safetensors files that the index names, or the only one
    #[arg(long)]
    pub weights: bool,
    /// Branch, tag or commit [default: main]
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<String>,
    /// Files whose path matches a pattern with * and ?, instead of the small ones (repeatable)
    #[arg(long = "file", value_name = "GLOB")]
    pub files: Vec<String>,
    /// Format of the answer
    #[arg(long, default_value = "table")]
    pub format: DbFormat,
}

#[derive(Args, Debug)]
pub(super) struct SchemaArgs {
    /// Which output: inspect, models, sweep, by-class, db-eval, fetch, compare, stats, run, bench-kernel, deploy, device, estimate, estimate-precisions
    pub name: String,
}

#[derive(Args, Debug)]
pub(super) struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

#[derive(Args, Debug)]
pub(super) struct ManArgs {
    /// A subcommand's page instead of the program's
    pub command: Option<String>,
}
