//! Which arguments may be addresses in a bucket. All others are places on disk, where `s3://` would be a folder of that name.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{ArgMatches, Command, Error};
use dcformer_volume::storage::is_address;

/// Verbs and those of their arguments.
const TAKEN: [(&str, &str); 9] = [
    ("detect", "inputs"),
    ("embed", "data"),
    ("embed", "inputs"),
    ("evaluate", "data"),
    ("finetune", "data"),
    ("prepare", "data"),
    ("prepare", "out"),
    ("preprocess", "input"),
    ("search", "like"),
];

/// Refuses an address where a place on disk is expected.
///
/// # Errors
/// If there is one.
pub(crate) fn check(program: &mut Command, matches: &ArgMatches) -> Result<(), Error> {
    let Some((verb, mut matches)) = matches.subcommand() else {
        return Ok(());
    };
    loop {
        for id in matches.ids() {
            if TAKEN.contains(&(verb, id.as_str())) {
                continue;
            }
            // What is no path is of another type.
            let paths = matches.try_get_many::<PathBuf>(id.as_str());
            let mut paths = paths.ok().flatten().into_iter().flatten();
            if let Some(path) = paths.find(|path| is_address(path)) {
                let message = format!(
                    "`{id}` of `dcformer {verb}` is {}, an address in a bucket, expected a place on disk; copy it from there or \
                     to there with a program for buckets",
                    path.display()
                );
                return Err(program.error(ErrorKind::ValueValidation, message));
            }
        }
        match matches.subcommand() {
            Some((_, inner)) => matches = inner,
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::Program;

    fn refusal(arguments: &str) -> Option<String> {
        let mut program = Program::command();
        let words = arguments.split(' ');
        let matches = program.try_get_matches_from_mut(words);
        let matches = matches.expect("right use");
        let error = check(&mut program, &matches).err()?;
        assert_eq!(error.exit_code(), 2);
        Some(error.to_string())
    }

    #[test]
    fn an_address_is_refused_where_a_folder_of_its_name_would_be_made() {
        for arguments in [
            "dcformer train run.toml --out s3://bucket/place",
            "dcformer embed --model m --data s3://bucket/cache --out s3://bucket/place",
            "dcformer detect --model s3://bucket/place s3://bucket/volume.zarr",
            "dcformer phantom s3://bucket/place",
            "dcformer bench detect --model m s3://bucket/place",
        ] {
            let said = refusal(arguments).expect(arguments);
            assert!(said.contains("is s3://bucket/place, an address"), "{said}");
        }
    }

    #[test]
    fn addresses_are_taken_where_they_are_read() {
        for arguments in [
            "dcformer prepare s3://bucket/scans --out s3://bucket/cache",
            "dcformer evaluate --model m --data s3://bucket/cache",
            "dcformer embed --model m s3://bucket/volume.zarr --out latents.safetensors",
        ] {
            assert_eq!(refusal(arguments), None, "{arguments}");
        }
    }

    #[test]
    fn every_argument_of_the_table_exists() {
        let program = Program::command();
        for (verb, id) in TAKEN {
            let verb = program.find_subcommand(verb).expect("a verb");
            assert!(verb.get_arguments().any(|argument| argument.get_id() == id));
        }
    }
}
