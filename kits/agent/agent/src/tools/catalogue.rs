//! The built-in tools as a model is told of them. Names and parameters are upstream's.

use serde_json::{Value, json};

use crate::provider::ToolDefinition;

/// All built-in tools.
#[must_use]
pub(crate) fn tools() -> Vec<ToolDefinition> {
    let text = |what: &str| json!({"type": "string", "description": what});
    let number = |what: &str| json!({"type": "integer", "description": what});
    vec![
        tool(
            "bash",
            "Run a shell command with sh in /workspace. It ends after 60 seconds with all that \
             it started; send the output of what is to go on in the background to a file.",
            json!({"command": text("The command")}),
            &["command"],
        ),
        tool(
            "read_file",
            "Read a text file, or some of its lines. At most 50 KB are shown.",
            json!({
                "path": text("Path, relative to /workspace"),
                "start_line": number("First line, from 1"),
                "end_line": number("Last line"),
            }),
            &["path"],
        ),
        tool(
            "write_file",
            "Write a file under /workspace, with its folders.",
            json!({"path": text("Path, relative to /workspace"), "content": text("All of it")}),
            &["path", "content"],
        ),
        tool(
            "edit_file",
            "Change a file under /workspace: replace old_text, or the lines start_line to \
             end_line, by new_text. old_text must be there once, unless occurrence says which.",
            json!({
                "path": text("Path, relative to /workspace"),
                "new_text": text("What is put there"),
                "old_text": text("What is there, exactly"),
                "start_line": number("First line to replace, from 1"),
                "end_line": number("Last line to replace"),
                "occurrence": number("Which old_text, from 1"),
            }),
            &["path", "new_text"],
        ),
        tool(
            "list_files",
            "List a folder.",
            json!({"path": text("Path, relative to /workspace, which is the default")}),
            &[],
        ),
        tool(
            "glob",
            "Find files by a pattern such as **/*.py; at most 200.",
            json!({"pattern": text("The pattern"), "path": text("Folder to start from")}),
            &["pattern"],
        ),
        tool(
            "grep",
            "Find lines by a regular expression; at most 50. Files over 1 MB are left out.",
            json!({
                "pattern": text("Regular expression"),
                "path": text("Folder or file to look in"),
                "include": text("Only files whose name matches, such as *.rs"),
            }),
            &["pattern"],
        ),
        tool(
            "memory_store",
            "Remember a fact or a preference beyond this conversation. Never a secret.",
            json!({
                "text": text("At most 500 characters"),
                "tags": {"type": "array", "items": {"type": "string"}},
                "scope": {"type": "string", "enum": ["user", "workspace", "session"],
                    "description": "Who it is for: this person, everybody, this conversation"},
            }),
            &["text"],
        ),
        tool(
            "memory_search",
            "Look for what was remembered, newest first; at most 20.",
            json!({"query": text("Words"), "tag": text("A tag")}),
            &[],
        ),
        tool(
            "memory_delete",
            "Forget what has an id.",
            json!({"id": text("The id, such as m-3")}),
            &["id"],
        ),
        tool(
            "web_fetch",
            "Get a web page or file by http or https, as text of at most 10 KB.",
            json!({"url": text("The address")}),
            &["url"],
        ),
        tool(
            "respond_with_image",
            "Attach an image file (png, jpg, gif, webp; at most 10 MiB) to your answer.",
            json!({"path": text("Path, relative to /workspace")}),
            &["path"],
        ),
        tool(
            "notify",
            "Send people a message now, apart from your answer: in this conversation, or, from \
             a scheduled message, in those that they used last.",
            json!({"text": text("The message")}),
            &["text"],
        ),
        tool(
            "self_info",
            "What this instance is: name, image, ports.",
            json!({}),
            &[],
        ),
        tool(
            super::SELF_RESTART,
            "Restart this VM once your answer has arrived. /workspace is kept.",
            json!({}),
            &[],
        ),
    ]
}

#[expect(clippy::needless_pass_by_value, reason = "literals read better")]
fn tool(name: &str, description: &str, properties: Value, required: &[&str]) -> ToolDefinition {
    ToolDefinition {
        name: name.to_owned(),
        description: description.to_owned(),
        parameters: json!({"type": "object", "properties": properties, "required": required}),
    }
}
