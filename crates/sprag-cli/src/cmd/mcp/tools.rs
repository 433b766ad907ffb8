//! The tools: what they take, and what they give.

use std::sync::Arc;

use rmcp::handler::server::common::schema_for_type;
use rmcp::model::ToolAnnotations;
use rmcp::schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use sprag::memory::{Json, Memory};
use sprag_search::LexicalEmbedder;

use crate::shared::call::{
    Answer, Call, CallId, Change, Fault, Filter, Forgotten, Found, MAX_FOUND, Query, Recall, Whose,
};
use crate::when;

/// Memories of a search that says no number.
const FOUND: usize = 10;
/// Memories of a recall that says no number.
const RECALLED: usize = 20;
/// How similar what a search with an embedding finds is at least: not at all opposed.
const THRESHOLD: f32 = 0.0;

/// Keeps something.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "rmcp::schemars")]
struct Store {
    /// What to remember: at most 1 MiB. Needed, unless `id` is given.
    content: Option<String>,
    /// A short title: at most 1,024 bytes.
    title: Option<String>,
    /// At most 64 tags, each of at most 128 bytes.
    tags: Option<Vec<String>>,
    /// Anything else that belongs to it.
    metadata: Option<Map<String, Value>>,
    /// The id of a memory that is there: it is changed instead. What is not given stays as it is.
    id: Option<String>,
    /// A vector of 1 to 4,096 numbers, if you have a model for that; then search with vectors of the same model. Without it, one is made of
    /// the words.
    embedding: Option<Vec<f32>>,
}

/// Looks for what is similar.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "rmcp::schemars")]
struct Search {
    /// What to look for, in words. Either this or `embedding`.
    query: Option<String>,
    /// A vector of the model that the vectors of the memories are of.
    embedding: Option<Vec<f32>>,
    /// The most memories to give: 1 to 100. Default: 10.
    limit: Option<usize>,
    /// How similar they are at least: -1 to 1. Default: 0.15 for words, 0 for a vector.
    threshold: Option<f32>,
    /// Only memories with all of these tags.
    tags: Option<Vec<String>>,
    /// Only memories made at this time or later: 2026-01-31, or 2026-01-31T12:00:00Z.
    since: Option<String>,
    /// Only memories made before this time.
    until: Option<String>,
}

/// Gives one memory, or the newest ones.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "rmcp::schemars")]
struct Recalled {
    /// The id of a memory: all of it is given. Without it, the newest are given.
    id: Option<String>,
    /// The most memories to give: 1 to 100. Default: 20.
    limit: Option<usize>,
    /// The `more` of an answer before: what comes after that.
    after: Option<String>,
    /// Only memories with all of these tags.
    tags: Option<Vec<String>>,
    /// Only memories made at this time or later: 2026-01-31, or 2026-01-31T12:00:00Z.
    since: Option<String>,
    /// Only memories made before this time.
    until: Option<String>,
}

/// Removes a memory.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "rmcp::schemars")]
struct Forget {
    /// The id of the memory.
    id: String,
    /// For good: keys that open it are destroyed on all devices of the user, which takes them some time. Default: false.
    erase: Option<bool>,
}

/// One of the tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    Store,
    Search,
    Recall,
    Forget,
}

impl Tool {
    pub(super) const ALL: [Self; 4] = [Self::Store, Self::Search, Self::Recall, Self::Forget];

    fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Search => "search",
            Self::Recall => "recall",
            Self::Forget => "forget",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tool| tool.name() == name)
    }

    pub(super) fn described(self) -> rmcp::model::Tool {
        let (schema, about) = match self {
            Self::Store => (
                schema_for_type::<Store>(),
                "Keeps a memory, encrypted, and gives its id. With the id of a memory that is there, changes that one. \
                 What was taken out of it before it was kept is counted in `redacted`.",
            ),
            Self::Search => (
                schema_for_type::<Search>(),
                "Finds the memories that are most similar to a query, best first, with their scores and ids. Long texts \
                 are cut: `recall` gives all of one.",
            ),
            Self::Recall => (
                schema_for_type::<Recalled>(),
                "Gives all of one memory by its id, or the newest memories, of certain tags and times if you say so.",
            ),
            Self::Forget => (
                schema_for_type::<Forget>(),
                "Removes a memory by its id, with `erase` for good. It cannot be undone.",
            ),
        };
        let reads = matches!(self, Self::Search | Self::Recall);
        let hints = ToolAnnotations::new()
            .read_only(reads)
            .destructive(!reads)
            .idempotent(self != Self::Store)
            .open_world(false);
        rmcp::model::Tool::new(self.name(), about, schema).with_annotations(hints)
    }
}

/// Speaks for an agent.
pub(super) struct Voice {
    pub(super) recall: Arc<dyn Recall>,
    pub(super) whose: Whose,
    pub(super) redact: bool,
}

impl Voice {
    /// Does what the agent asks.
    pub(super) fn call(&self, tool: Tool, arguments: Map<String, Value>) -> Result<Value, Fault> {
        let call = match tool {
            Tool::Store => self.store(read(arguments)?)?,
            Tool::Search => self.search(read(arguments)?)?,
            Tool::Recall => self.recall(read(arguments)?)?,
            Tool::Forget => self.forget(read(arguments)?),
        };
        shown(self.recall.call(CallId::draw(), &call)?)
    }

    fn store(&self, store: Store) -> Result<Call, Fault> {
        let metadata = store.metadata.map(|metadata| {
            let json = Value::Object(metadata).to_string();
            Json::parse(&json).map_err(|error| Fault::bad_input(error.to_string()))
        });
        let metadata = metadata.transpose()?;
        let embedding = vector(store.embedding)?;
        let whose = self.whose.clone();
        if let Some(id) = store.id {
            let change = Box::new(Change {
                content: store.content,
                title: store.title,
                tags: store.tags,
                metadata,
                embedding,
            });
            return Ok(Call::Update {
                whose,
                id,
                change,
                redact: self.redact,
            });
        }
        let content = store
            .content
            .filter(|content| !content.trim().is_empty())
            .ok_or_else(|| Fault::bad_input("there is nothing to remember: give `content`"))?;
        let mut memory = Memory::new(content)
            .title(store.title.unwrap_or_default())
            .tags(store.tags.unwrap_or_default());
        memory.metadata = metadata;
        memory.embedding = embedding;
        Ok(Call::Store {
            whose,
            memory: Box::new(memory),
            redact: self.redact,
        })
    }

    fn search(&self, search: Search) -> Result<Call, Fault> {
        let (query, usual) = match (search.query, vector(search.embedding)?) {
            (Some(text), None) => (Query::Text(text), LexicalEmbedder::THRESHOLD),
            (None, Some(embedding)) => (Query::Embedding(embedding), THRESHOLD),
            _ => {
                return Err(Fault::bad_input(
                    "give either `query` or `embedding`, and not both",
                ));
            }
        };
        let threshold = search.threshold.unwrap_or(usual);
        if !(-1.0..=1.0).contains(&threshold) {
            return Err(Fault::bad_input("`threshold` is -1 to 1"));
        }
        Ok(Call::Search {
            whose: self.whose.clone(),
            query,
            limit: limit(search.limit, FOUND)?,
            threshold,
            filter: filter(search.tags, search.since, search.until)?,
        })
    }

    fn recall(&self, recall: Recalled) -> Result<Call, Fault> {
        let whose = self.whose.clone();
        if let Some(id) = recall.id {
            return Ok(Call::Get { whose, id });
        }
        Ok(Call::List {
            whose,
            filter: filter(recall.tags, recall.since, recall.until)?,
            limit: limit(recall.limit, RECALLED)?,
            after: recall.after,
        })
    }

    fn forget(&self, forget: Forget) -> Call {
        Call::Forget {
            whose: self.whose.clone(),
            id: forget.id,
            erase: forget.erase.unwrap_or(false),
        }
    }
}

fn read<T: DeserializeOwned>(arguments: Map<String, Value>) -> Result<T, Fault> {
    // What serde says of an argument names fields and types; of values only those that are out of place.
    serde_json::from_value(Value::Object(arguments))
        .map_err(|error| Fault::bad_input(format!("the arguments are not right: {error}")))
}

/// An embedding that can be one. (Of a number beyond `f32` JSON would make nothing on its way to another process.)
fn vector(embedding: Option<Vec<f32>>) -> Result<Option<Vec<f32>>, Fault> {
    let mut memory = Memory::default();
    memory.embedding = embedding;
    memory.check().map_err(sprag::Error::from)?;
    Ok(memory.embedding.take())
}

fn limit(wanted: Option<usize>, usual: usize) -> Result<usize, Fault> {
    match wanted.unwrap_or(usual) {
        limit @ 1..=MAX_FOUND => Ok(limit),
        limit => Err(Fault::bad_input(format!(
            "`limit` is 1 to {MAX_FOUND}, and not {limit}"
        ))),
    }
}

fn filter(
    tags: Option<Vec<String>>,
    since: Option<String>,
    until: Option<String>,
) -> Result<Filter, Fault> {
    let time = |text: Option<String>| -> Result<Option<u64>, Fault> {
        text.map(|text| when::parse(&text))
            .transpose()
            .map_err(Fault::bad_input)
    };
    Ok(Filter {
        tags: tags.unwrap_or_default(),
        since: time(since)?,
        until: time(until)?,
    })
}

/// What the agent sees of an answer.
fn shown(answer: Answer) -> Result<Value, Fault> {
    Ok(match answer {
        Answer::Written {
            id,
            revision,
            redacted,
        } => {
            let redacted: Map<String, Value> = redacted
                .into_iter()
                .map(|(kind, count)| (kind, count.into()))
                .collect();
            json!({ "id": id, "revision": revision, "redacted": redacted })
        }
        Answer::Memory(found) => memory(&found),
        Answer::Memories { found, more } => {
            let memories: Vec<Value> = found.iter().map(memory).collect();
            json!({ "memories": memories, "more": more })
        }
        Answer::Forgotten { id, state } => {
            let state = match state {
                Forgotten::Deleted => "deleted",
                Forgotten::ErasePending => "erase_pending",
                Forgotten::Erased => "erased",
            };
            json!({ "id": id, "state": state })
        }
        Answer::Imported(_) | Answer::Exported { .. } | Answer::Counted(_) => {
            return Err(Fault::bad_input("no tool asks for this"));
        }
    })
}

fn memory(found: &Found) -> Value {
    let memory = &found.memory;
    let mut shown = json!({
        "id": memory.id,
        "title": memory.title,
        "content": memory.content,
        "tags": memory.tags,
        "created_at": when::show(memory.created_at),
        "updated_at": when::show(memory.updated_at),
        "revision": found.revision,
        "device": found.device,
    });
    let mut put = |name: &str, value: Value| {
        if let Some(shown) = shown.as_object_mut() {
            shown.insert(name.to_owned(), value);
        }
    };
    if let Some(agent) = &found.agent {
        put("agent", agent.as_str().into());
    }
    if let Some(score) = found.score {
        // As many digits as mean something.
        put("score", json!((f64::from(score) * 1e4).round() / 1e4));
    }
    if found.cut {
        put("cut", true.into());
    }
    if let Some(code) = &found.unreadable {
        put("unreadable", code.as_str().into());
    }
    if let Some(metadata) = &memory.metadata
        && let Ok(metadata) = serde_json::from_str(metadata.as_str())
    {
        put("metadata", metadata);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody to ask.
    struct Nobody;

    impl Recall for Nobody {
        fn call(&self, _: CallId, _: &Call) -> Result<Answer, Fault> {
            panic!("asked")
        }
    }

    #[test]
    fn vector_that_is_none_is_refused_before_anybody_is_asked() {
        let voice = Voice {
            recall: Arc::new(Nobody),
            whose: Whose {
                user: None,
                agent: None,
            },
            redact: true,
        };
        // A number beyond f32 among them: on its way to another process JSON would make nothing of it.
        for embedding in [json!([1e39]), json!([1.0, -1e300]), json!([]), json!([0])] {
            for (tool, mut arguments) in [
                (Tool::Store, json!({ "content": "x" })),
                (Tool::Store, json!({ "id": "x" })),
                (Tool::Search, json!({})),
            ] {
                arguments["embedding"] = embedding.clone();
                let arguments = arguments.as_object().unwrap().clone();
                let refused = voice.call(tool, arguments).unwrap_err();
                assert_eq!(refused.code, "bad_record", "{embedding}");
            }
        }
    }
}
