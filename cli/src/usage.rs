//! From words to commands, and what is said about words that are not understood.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches, Command, CommandFactory as _, FromArgMatches as _};

use crate::args::Cli;
use crate::output;

/// The whole command line, as help and completion show it.
pub fn command() -> Command {
    let command = Cli::command();
    #[cfg(feature = "server")]
    let command = command.subcommands(crate::serve::commands());
    command
}

/// Reads the words. Help and mistakes are answered here: the exit code is then returned.
///
/// # Errors
/// The exit code: 0 after help, 1 after a mistake.
pub fn parse(words: &[OsString]) -> Result<Cli, ExitCode> {
    let parsed = command().try_get_matches_from(words);
    match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => Ok(cli),
        Err(error) if error.kind() == ErrorKind::DisplayHelp => {
            // Help that nobody reads any more is no failure.
            let _ = error.print();
            Err(ExitCode::SUCCESS)
        }
        Err(error) => {
            output::failure(&explain(&error, words), None);
            Err(ExitCode::FAILURE)
        }
    }
}

/// Prints the help of a command.
///
/// # Errors
/// Nobody reads the output any more.
pub fn help(path: &[&str]) -> crate::error::Result {
    let words = ["dispatch"].iter().chain(path).chain(&["--help"]);
    match command().try_get_matches_from(words) {
        Err(help) => help.print().map_err(|_| crate::error::Error::Pipe),
        Ok(_) => Ok(()),
    }
}

fn explain(error: &clap::Error, words: &[OsString]) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(" "),
        _ => String::new(),
    };
    let usage = match error.get(ContextKind::Usage) {
        Some(ContextValue::StyledStr(usage)) => format!("\n{usage}"),
        _ => String::new(),
    };
    let argument = text(ContextKind::InvalidArg);
    // `--port <PORT>`, `<PORT>|--port`, `-p`: what was typed.
    let flag = argument.split([' ', '=']).next().unwrap_or_default();
    let wrong = text(ContextKind::InvalidValue);
    match error.kind() {
        ErrorKind::InvalidSubcommand => unknown(words, &text(ContextKind::InvalidSubcommand)),
        ErrorKind::UnknownArgument if flag.starts_with("--") => {
            format!("Error: unknown flag: {flag}{usage}")
        }
        ErrorKind::UnknownArgument if flag.starts_with('-') => {
            let letter = flag.trim_start_matches('-');
            format!("Error: unknown shorthand flag: '{letter}' in {flag}{usage}")
        }
        ErrorKind::UnknownArgument | ErrorKind::MissingRequiredArgument
            if !argument.starts_with('-') =>
        {
            match count(words, error.kind() == ErrorKind::MissingRequiredArgument) {
                Some(text) => format!("Error: {text}{usage}"),
                None => plain(error),
            }
        }
        ErrorKind::InvalidValue if wrong.is_empty() && flag.starts_with('-') => {
            format!("Error: flag needs an argument: {flag}{usage}")
        }
        ErrorKind::InvalidValue if flag == "--output" => {
            "invalid format option [json|yaml|name|table]".to_owned()
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let why = match error.get(ContextKind::ValidValue) {
                Some(ContextValue::Strings(valid)) => {
                    let valid: Vec<_> = valid.iter().filter(|v| !v.is_empty()).cloned().collect();
                    format!("use one of {}", valid.join(", "))
                }
                _ => std::error::Error::source(error).map(ToString::to_string).unwrap_or_default(),
            };
            format!("Error: invalid argument {wrong:?} for \"{flag}\": {why}{usage}")
        }
        _ => plain(error),
    }
}

/// What the parser itself says.
pub fn plain(error: &clap::Error) -> String {
    let text = error.render().to_string();
    format!("Error: {}", text.trim_start_matches("error: ").trim_end())
}

/// A word that is not known: the ones that are like it, and where the others stand.
fn unknown(words: &[OsString], word: &str) -> String {
    let mut path = vec!["dispatch".to_owned()];
    let command = command();
    let mut found = &command;
    for word in words.iter().skip(1).filter_map(|word| word.to_str()) {
        if let Some(inner) = found.find_subcommand(word) {
            path.push(inner.get_name().to_owned());
            found = inner;
        }
    }
    let path = path.join(" ");
    let like = found.get_subcommands().filter(|command| !command.is_hide_set()).filter(|command| {
        command
            .get_name_and_visible_aliases()
            .into_iter()
            .chain(command.get_all_aliases())
            .any(|known| is_like(word, known))
    });
    let like: String = like.map(|command| format!("\t{}\n", command.get_name())).collect();
    let like = if like.is_empty() { like } else { format!("\nDid you mean this?\n{like}\n") };
    format!("Error: unknown command {word:?} for {path:?}\n{like}Run '{path} --help' for usage.")
}

/// Whether a word may be meant where another was typed: it begins with it, or two changes make it.
fn is_like(typed: &str, known: &str) -> bool {
    let (typed, known) = (typed.to_lowercase(), known.to_lowercase());
    if known.starts_with(&typed) {
        return true;
    }
    // The distance of each beginning of `known` from what has been read of `typed`.
    let known: Vec<char> = known.chars().collect();
    let mut row: Vec<usize> = (0..=known.len()).collect();
    for (at, letter) in typed.chars().enumerate() {
        let mut before = row[0];
        row[0] = at + 1;
        for (column, other) in known.iter().enumerate() {
            let changed = before + usize::from(letter != *other);
            before = row[column + 1];
            row[column + 1] = changed.min(before + 1).min(row[column] + 1);
        }
    }
    row[known.len()] <= 2
}

/// How many words a command takes and how many there are; `missing` where one is needed that other
/// flags could replace.
fn count(words: &[OsString], missing: bool) -> Option<String> {
    let strict = command();
    let matches = lenient(command()).try_get_matches_from(words).ok()?;
    let (mut found, mut values) = (&strict, &matches);
    while let Some((word, inner)) = values.subcommand() {
        (found, values) = (found.find_subcommand(word)?, inner);
    }
    let given = |arg: &Arg, values: &ArgMatches| {
        values.try_get_raw(arg.get_id().as_str()).ok().flatten().map_or(0, Iterator::count)
    };
    let extra = values.try_get_raw(EXTRA).ok().flatten().map_or(0, Iterator::count);
    let received = extra
        + found
            .get_positionals()
            .filter(|arg| {
                values
                    .value_source(arg.get_id().as_str())
                    .is_some_and(|s| s != clap::parser::ValueSource::DefaultValue)
            })
            .map(|arg| given(arg, values))
            .sum::<usize>();
    let most = found.get_positionals().count();
    let least = found.get_positionals().filter(|arg| arg.is_required_set()).count();
    let least = if missing { least.max(received + 1).min(most) } else { least };
    Some(if least == most {
        format!("accepts {most} arg(s), received {received}")
    } else if least == 0 {
        format!("accepts at most {most} arg(s), received {received}")
    } else {
        format!("accepts between {least} and {most} arg(s), received {received}")
    })
}

const EXTRA: &str = "extra-words";

/// The same commands, taking any number of words and any word.
fn lenient(command: Command) -> Command {
    if command.has_subcommands() {
        return command.mut_subcommands(lenient);
    }
    let extra = Arg::new(EXTRA).num_args(0..).hide(true);
    let free = |arg: Arg| if arg.is_positional() { Arg::new(arg.get_id().clone()) } else { arg };
    command.mut_args(free).arg(extra)
}
