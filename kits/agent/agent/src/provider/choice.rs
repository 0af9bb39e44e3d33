//! Which model is asked, where, and with which key. Pure.
//!
//! | model | protocol | address | key |
//! |---|---|---|---|
//! | `openai/M` | OpenAI | `OPENAI_BASE_URL` | `OPENAI_API_KEY` |
//! | `anthropic/M`, `claude/M` | Anthropic | `ANTHROPIC_BASE_URL` | `ANTHROPIC_API_KEY` |
//! | `host:ollama\|lmstudio\|vllm/M` | OpenAI, through the host | none | none |
//! | `NAME/M` | OpenAI | OpenAI's, unless `base_url` says another | `NAME_API_KEY` |
//!
//! `base_url` and `api_key_env` of the settings win, then those of `providers`.

use crate::config::Config;

/// Upstream's defaults.
const OPENAI_MODEL: &str = "openai/gpt-5.4";
const CLAUDE_MODEL: &str = "anthropic/claude-sonnet-4-20250514";

/// How a model is reached.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Route {
    OpenAi {
        base_url: String,
        key: Option<String>,
        official: bool,
    },
    Claude {
        base_url: String,
        key: Option<String>,
    },
    /// Through the guest API, by a server on the host.
    Host { server: String },
}

/// A model and how it is reached.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub model: String,
    pub route: Route,
}

/// Why no model can be asked. The texts are for users.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChoiceError {
    #[error(
        "No model is set. Set `model` in .aegis/agent.json or AEGIS_MODEL, or give the instance \
         OPENAI_API_KEY or ANTHROPIC_API_KEY."
    )]
    NoModel,
    #[error("The model {0:?} is not written as PROVIDER/MODEL")]
    Name(String),
    #[error("The model {model} needs an API key, and the variable {variable} is not set")]
    NoKey { model: String, variable: String },
    #[error("{0:?} is no server for models on the host; ollama, lmstudio and vllm are")]
    HostServer(String),
}

/// What is asked with these settings; `variable` gives environment variables.
///
/// # Errors
/// See [`ChoiceError`].
pub(crate) fn choose(
    config: &Config,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Target, ChoiceError> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let default = || {
        let of = |key, model: &str| set(key).map(|_| model.to_owned());
        of("OPENAI_API_KEY", OPENAI_MODEL).or_else(|| of("ANTHROPIC_API_KEY", CLAUDE_MODEL))
    };
    let named = config.model.clone().filter(|model| !model.is_empty());
    let name = named.or_else(default).ok_or(ChoiceError::NoModel)?;
    let bad = || ChoiceError::Name(name.clone());
    let (provider, model) = name.split_once('/').ok_or_else(bad)?;
    if provider.is_empty() || model.is_empty() {
        return Err(bad());
    }
    let model = model.to_owned();
    if let Some(server) = provider.strip_prefix("host:") {
        return match server {
            "ollama" | "lmstudio" | "vllm" => Ok(Target {
                model,
                route: Route::Host {
                    server: server.to_owned(),
                },
            }),
            other => Err(ChoiceError::HostServer(other.to_owned())),
        };
    }
    let provider = if provider == "claude" {
        "anthropic"
    } else {
        provider
    };
    let access = config.providers.get(provider);
    let own_url = config.base_url.clone().or_else(|| access?.base_url.clone());
    let base_url = |variable: &str, default: &str| {
        let url = own_url
            .clone()
            .or_else(|| set(variable))
            .unwrap_or_else(|| default.to_owned());
        url.trim_end_matches('/').to_owned()
    };
    let key_name = config
        .api_key_env
        .clone()
        .or_else(|| access?.api_key_env.clone());
    let key_name = key_name
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| key_variable(provider));
    // A server at an address of one's own may want no key.
    let key = match set(&key_name) {
        None if own_url.is_none() => {
            return Err(ChoiceError::NoKey {
                model: name.clone(),
                variable: key_name,
            });
        }
        key => key,
    };
    let route = match provider {
        "anthropic" => Route::Claude {
            base_url: base_url("ANTHROPIC_BASE_URL", "https://api.anthropic.com"),
            key,
        },
        _ => {
            let base_url = base_url("OPENAI_BASE_URL", "https://api.openai.com/v1");
            Route::OpenAi {
                official: provider == "openai",
                base_url,
                key,
            }
        }
    };
    Ok(Target { model, route })
}

fn key_variable(provider: &str) -> String {
    let letter = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_uppercase()
        } else {
            '_'
        }
    };
    format!(
        "{}_API_KEY",
        provider.chars().map(letter).collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(config: &str, variables: &[(&str, &str)]) -> Result<Target, ChoiceError> {
        let variables: std::collections::HashMap<_, _> = variables.iter().copied().collect();
        let config = Config::parse(config).unwrap();
        choose(&config, |name| variables.get(name).map(ToString::to_string))
    }

    fn openai(config: &str, variables: &[(&str, &str)]) -> (String, Option<String>, bool) {
        match choice(config, variables).map(|target| target.route) {
            Ok(Route::OpenAi {
                base_url,
                key,
                official,
            }) => (base_url, key, official),
            _ => panic!("not OpenAI's protocol"),
        }
    }

    #[test]
    fn without_a_model_the_keys_choose_upstreams_default() {
        let of = |keys| choice("{}", keys).map(|target| target.model);
        assert_eq!(of(&[("OPENAI_API_KEY", "k")]).as_deref(), Ok("gpt-5.4"));
        assert_eq!(
            of(&[("ANTHROPIC_API_KEY", "k")]).as_deref(),
            Ok("claude-sonnet-4-20250514")
        );
        assert_eq!(of(&[("OPENAI_API_KEY", "")]), Err(ChoiceError::NoModel));
    }

    #[test]
    fn addresses_and_keys_come_from_settings_then_variables() {
        let keys = [
            ("OPENAI_API_KEY", "k"),
            ("MINE", "m"),
            ("OPENAI_BASE_URL", "http://env/v1/"),
        ];
        let (url, key, official) = openai(r#"{"model":"openai/a"}"#, &keys);
        assert_eq!(
            (url.as_str(), key.as_deref(), official),
            ("http://env/v1", Some("k"), true)
        );
        let own = r#"{"model":"openai/a","api_key_env":"MINE",
            "providers":{"openai":{"base_url":"http://own/v1"}}}"#;
        let (url, key, _) = openai(own, &keys);
        assert_eq!((url.as_str(), key.as_deref()), ("http://own/v1", Some("m")));
    }

    #[test]
    fn other_providers_speak_openais_protocol_with_a_key_of_their_name() {
        let (url, key, official) = openai(r#"{"model":"my-ai/a/b"}"#, &[("MY_AI_API_KEY", "k")]);
        assert_eq!(url, "https://api.openai.com/v1");
        assert_eq!((key.as_deref(), official), (Some("k"), false));
        let refused = choice(r#"{"model":"my-ai/a"}"#, &[]);
        assert!(
            matches!(refused, Err(ChoiceError::NoKey { variable, .. }) if variable == "MY_AI_API_KEY")
        );
    }

    #[test]
    fn models_on_the_host_need_no_key_and_claude_is_anthropic() {
        let host = choice(r#"{"model":"host:ollama/qwen:4b"}"#, &[]).map(|t| (t.model, t.route));
        let ollama = Route::Host {
            server: "ollama".into(),
        };
        assert!(host == Ok(("qwen:4b".into(), ollama)));
        let other = choice(r#"{"model":"host:other/a"}"#, &[]);
        assert_eq!(
            other.map(|t| t.model),
            Err(ChoiceError::HostServer("other".into()))
        );
        let claude = choice(r#"{"model":"claude/c"}"#, &[("ANTHROPIC_API_KEY", "k")]);
        assert!(matches!(claude.map(|t| t.route), Ok(Route::Claude { .. })));
    }
}
