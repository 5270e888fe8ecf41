//! Models of a hub: what is said without downloads, and downloads from a hub of our own.

use crate::{arguments, run};

#[cfg(not(feature = "hub"))]
#[test]
fn without_downloads_the_program_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("model");
    let name = "MagicXin/DCFormer_SigLIP";
    run(arguments!["import", "--hub", name, "--out", &out]).failed(&[
        "--features hub",
        "hf download MagicXin/DCFormer_SigLIP",
        "import FOLDER",
    ]);
    assert_eq!(
        run(arguments!["import", "--out", &out]).status,
        Some(2),
        "a checkpoint or a name"
    );
}

#[cfg(feature = "hub")]
mod with_downloads {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use super::*;
    use crate::{Ran, repository};

    const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

    /// A model that only those see who have the token `secret`.
    const GATED: &str = "owner/gated";

    /// A hub with one model, the files of a folder, under any name; `also` are names that it lists besides.
    fn serve(folder: PathBuf, also: &'static [&'static str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.expect("a request"), &folder, also);
            }
        });
        format!("http://{address}")
    }

    /// What a program asks for.
    #[derive(Default)]
    struct Request {
        path: String,
        /// The first byte that is wanted.
        first: usize,
        /// Who asks.
        authorization: String,
    }

    impl Request {
        fn read(stream: &TcpStream) -> Self {
            let mut lines = BufReader::new(stream)
                .lines()
                .map(|line| line.expect("text"));
            let request = lines.next().expect("a line");
            let path = request.split(' ').nth(1).expect("a path").to_owned();
            let mut request = Self {
                path,
                ..Self::default()
            };
            for line in lines.take_while(|line| !line.is_empty()) {
                let (name, value) = line.split_once(": ").expect("a header");
                match &*name.to_ascii_lowercase() {
                    "authorization" => request.authorization = value.to_owned(),
                    "range" => {
                        let range = value.strip_prefix("bytes=").expect("of bytes");
                        let (first, _) = range.split_once('-').expect("a range");
                        request.first = first.parse().expect("a number");
                    }
                    _ => {}
                }
            }
            request
        }
    }

    /// Answers one request, as the hub does: a list of files, or a part of one with its commit and tag.
    fn answer(mut stream: TcpStream, folder: &Path, also: &[&str]) {
        let Request {
            path,
            first,
            authorization,
        } = Request::read(&stream);
        let (status, body, headers) = if path.contains(GATED) && authorization != "Bearer secret" {
            ("401 Unauthorized", Vec::new(), String::new())
        } else if path.starts_with("/api/models/") {
            let files = std::fs::read_dir(folder).expect("a folder");
            let name = |file: std::fs::DirEntry| file.file_name().into_string().expect("text");
            let names = files.map(|file| name(file.expect("a file")));
            let names = names.chain(also.iter().map(|&name| name.to_owned()));
            let files: Vec<_> = names
                .map(|name| serde_json::json!({ "rfilename": name }))
                .collect();
            let info = serde_json::json!({ "sha": SHA, "siblings": files });
            ("200 OK", info.to_string().into_bytes(), String::new())
        } else {
            let (_, name) = path.rsplit_once('/').expect("a name");
            assert!(path.contains(SHA), "{path}: files of one commit");
            let bytes = std::fs::read(folder.join(name)).expect("only what is there is asked for");
            let size = bytes.len();
            let last = size - 1;
            let headers = format!(
                "etag: \"{name}\"\r\nx-repo-commit: {SHA}\r\ncontent-range: bytes {first}-{last}/{size}\r\n"
            );
            ("206 Partial Content", bytes[first..].to_vec(), headers)
        };
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n"
        );
        // Who asks for the size only does not read the rest.
        let _ = stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(&body));
    }

    fn import(endpoint: &str, cache: &Path, name: &str, out: &Path) -> Ran {
        import_as("", endpoint, cache, name, out)
    }

    fn import_as(token: &str, endpoint: &str, cache: &Path, name: &str, out: &Path) -> Ran {
        let mut program = Command::new(env!("CARGO_BIN_EXE_dcformer"));
        program.args(arguments!["import", "--hub", name, "--out", out]);
        program.env("HF_ENDPOINT", endpoint).env("HF_HOME", cache);
        program.env("HF_TOKEN", token);
        for proxy in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"] {
            program
                .env_remove(proxy)
                .env_remove(proxy.to_ascii_lowercase());
        }
        Ran::new(program.output().expect("the program can be started"))
    }

    fn weights(model: &Path) -> Vec<u8> {
        std::fs::read(model.join("model.safetensors")).expect("a model")
    }

    #[test]
    fn a_model_of_a_hub_is_the_model_of_its_folder() {
        let work = tempfile::tempdir().expect("a folder");
        let place = |name: &str| work.path().join(name);
        let folder = repository("golden/text/dcformer_siglip");
        let local = place("local");
        run(arguments!["import", &folder, "--out", &local]).succeeded();

        let name = "MagicXin/DCFormer_SigLIP";
        let also = &["README.md", "../config.json", "sub/model-1.safetensors"];
        let endpoint = serve(folder, also);
        let (cache, out) = (place("cache"), place("downloaded"));
        import(&endpoint, &cache, name, &out).succeeded();
        assert!(weights(&out) == weights(&local));
        let config = |model: &Path| std::fs::read(model.join("config.json")).expect("a model");
        assert_eq!(config(&out), config(&local));

        let again = place("again");
        let ran = import(&silent(), &cache, name, &again).succeeded();
        assert!(weights(&again) == weights(&local));
        assert!(
            ran.stderr.contains("the copy in its cache"),
            "{}",
            ran.stderr
        );
    }

    /// A hub that does not answer: a port that was free a moment ago.
    fn silent() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        format!("http://{}", listener.local_addr().expect("an address"))
    }

    #[test]
    fn a_hub_that_does_not_answer_is_said() {
        let work = tempfile::tempdir().expect("a folder");
        let place = |name: &str| work.path().join(name);
        let name = "MagicXin/DCFormer_SigLIP";
        let (cache, out) = (place("cache"), place("model"));
        import(&silent(), &cache, name, &out).failed(&[
            "cannot download MagicXin/DCFormer_SigLIP from the hub",
            "hf download",
            "import FOLDER",
        ]);
        assert!(!out.exists());
    }

    #[test]
    fn a_gated_model_is_given_to_who_has_a_token() {
        let work = tempfile::tempdir().expect("a folder");
        let place = |name: &str| work.path().join(name);
        let endpoint = serve(repository("golden/text/dcformer_siglip"), &[]);
        let (cache, out) = (place("cache"), place("model"));
        for token in ["", "wrong"] {
            import_as(token, &endpoint, &cache, GATED, &out).failed(&[
                "the hub shows no model owner/gated",
                "401",
                "`hf auth login`",
                "HF_TOKEN",
            ]);
        }
        import_as("secret", &endpoint, &cache, GATED, &out).succeeded();
        assert!(out.join("model.safetensors").exists());
    }

    #[test]
    fn names_and_models_that_are_none_are_refused() {
        let work = tempfile::tempdir().expect("a folder");
        let place = |name: &str| work.path().join(name);
        let (cache, out) = (place("cache"), place("model"));
        for name in ["DCFormer", "../x", "a/..", "a/b/c", "a/b?c", "/", ""] {
            import("http://127.0.0.1:9", &cache, name, &out).failed(&["OWNER/NAME"]);
        }
        let folder = place("empty");
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::write(folder.join("config.json"), "{}").expect("it can be written");
        let endpoint = serve(folder, &[]);
        import(&endpoint, &cache, "a/b", &out).failed(&["a/b has no weights", "pytorch_model.bin"]);
        assert!(!out.exists());
    }
}
