//! Models of Hugging Face's hub, downloaded where the program was built with the feature `hub`.

#[cfg(feature = "hub")]
pub(crate) use self::with_client::download;

/// Says that this program cannot download, and what to do.
#[cfg(not(feature = "hub"))]
pub(crate) fn download(name: &str) -> anyhow::Result<std::path::PathBuf> {
    anyhow::bail!(
        "this program was built without downloads: build it with `--features hub`, or {}",
        by_hand(name)
    )
}

/// What there is to do without a download.
fn by_hand(name: &str) -> String {
    format!(
        "download the model elsewhere (`hf download {name} --local-dir FOLDER`) and import FOLDER"
    )
}

#[cfg(feature = "hub")]
mod with_client {
    use std::io::IsTerminal;
    use std::path::{Path, PathBuf};

    use anyhow::{Context, anyhow, bail, ensure};
    use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
    use hf_hub::{Cache, Repo, RepoType};

    use super::by_hand;
    use crate::progress::note;

    /// The variable that shows the hub who asks.
    const TOKEN: &str = "HF_TOKEN";
    /// What is taken besides the weights, where it is there.
    const SETTINGS: [&str; 4] = [
        "config.json",
        "tokenizer.json",
        "vocab.txt",
        "tokenizer_config.json",
    ];
    /// Weights in the order of preference: a file, or an index with what its parts begin and end with.
    const WEIGHTS: [(&str, Option<[&str; 2]>); 4] = [
        ("model.safetensors", None),
        (
            "model.safetensors.index.json",
            Some(["model-", ".safetensors"]),
        ),
        ("pytorch_model.bin", None),
        (
            "pytorch_model.bin.index.json",
            Some(["pytorch_model-", ".bin"]),
        ),
    ];

    /// The folder of a model of the hub, named as there, `OWNER/NAME`: downloaded, or from the hub's cache.
    ///
    /// # Errors
    /// If the hub cannot be reached and its cache does not have the model, or the model has no weights that are read.
    pub(crate) fn download(name: &str) -> anyhow::Result<PathBuf> {
        check_name(name)?;
        let mut api = ApiBuilder::from_env().with_progress(std::io::stderr().is_terminal());
        // Without it, the token is the one that `hf auth login` kept.
        if let Ok(token) = std::env::var(TOKEN)
            && !token.trim().is_empty()
        {
            api = api.with_token(Some(token.trim().to_owned()));
        }
        let api = api.build()?;
        let info = match api.model(name.to_owned()).info() {
            Ok(info) => info,
            Err(error) => {
                let Some(folder) = cached(name) else {
                    return Err(explain(name, error));
                };
                note(&format!(
                    "no answer of the hub ({error}); the copy in its cache is used"
                ));
                return Ok(folder);
            }
        };
        let there: Vec<&str> = info
            .siblings
            .iter()
            .map(|file| file.rfilename.as_str())
            .collect();
        // It becomes part of paths.
        ensure!(
            info.sha.bytes().all(|byte| byte.is_ascii_alphanumeric()),
            "the hub has the commit {:?} of {name}, which is none",
            info.sha
        );
        // All files of one commit, whatever happens meanwhile.
        let repository = Repo::with_revision(name.to_owned(), RepoType::Model, info.sha.clone());
        let repository = api.repo(repository);
        let mut folder = None;
        for file in wanted(name, &there)? {
            folder = get(&repository, &file)?.parent().map(Path::to_owned);
        }
        // For the next time, if the hub does not answer then.
        Cache::from_env()
            .model(name.to_owned())
            .create_ref(&info.sha)?;
        folder.context("a file of the hub's cache is in a folder")
    }

    /// Tells a model that is not there, or not for everybody, from a hub that is not.
    fn explain(name: &str, error: ApiError) -> anyhow::Error {
        const HIDDEN: [u16; 3] = [401, 403, 404];
        let said = error.to_string();
        let answer = match error {
            ApiError::RequestError(error) => error.into_response(),
            _ => None,
        };
        match answer {
            Some(answer) if HIDDEN.contains(&answer.status()) => anyhow!(
                "the hub shows no model {name} ({said}): correct its name, or, if only some may see it, log in \
                 (`hf auth login`) or set {TOKEN}"
            ),
            _ => anyhow!(
                "cannot download {name} from the hub ({said}); {}",
                by_hand(name)
            ),
        }
    }

    fn get(repository: &ApiRepo, file: &str) -> anyhow::Result<PathBuf> {
        repository
            .get(file)
            .with_context(|| format!("cannot download {file}; try again, it goes on where it was"))
    }

    /// The files of a model that are needed, of those that are there.
    fn wanted(name: &str, there: &[&str]) -> anyhow::Result<Vec<String>> {
        let is_there = |file: &str| there.contains(&file);
        let Some((weights, parts)) = WEIGHTS.iter().find(|(file, _)| is_there(file)) else {
            let known = WEIGHTS.map(|(file, _)| file).join(", ");
            bail!("{name} has no weights that are read; expected one of {known}");
        };
        let settings = SETTINGS.iter().filter(|file| is_there(file)).copied();
        let parts = there.iter().copied().filter(|file| {
            let is_part = |[start, end]: [&str; 2]| {
                file.starts_with(start) && file.ends_with(end) && !file.contains(['/', '\\'])
            };
            parts.is_some_and(is_part)
        });
        let all = settings.chain([*weights]).chain(parts);
        Ok(all.map(str::to_owned).collect())
    }

    /// A model that was downloaded before, by this program or another.
    fn cached(name: &str) -> Option<PathBuf> {
        let config = Cache::from_env()
            .model(name.to_owned())
            .get("config.json")?;
        Some(config.parent()?.to_owned())
    }

    /// A name becomes part of paths.
    fn check_name(name: &str) -> anyhow::Result<()> {
        let is_word = |word: &str| {
            let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            word.bytes().all(known) && word.bytes().any(|byte| byte != b'.')
        };
        match name.split_once('/') {
            Some((owner, model)) if is_word(owner) && is_word(model) => Ok(()),
            _ => bail!("{name:?} is no name of a model, expected OWNER/NAME as on the hub"),
        }
    }
}
