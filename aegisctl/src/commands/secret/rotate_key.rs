//! `secret rotate-key`.

use aegis_bus::dict::Dict;
use aegis_bus::secrets::RotatedKey;
use serde_json::json;

use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;

/// Encrypt every value with a new key, which the host seals if it can
///
/// All values have the new key then, or none has. Those that cannot be read stay as
/// they are.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(super) async fn execute(context: &Context, Args {}: Args) -> Result<u8, Failure> {
    let progress = context.ui.progress("Encrypting the secrets anew");
    let rotate = async {
        let client = context.aegisd().await?;
        let secrets = client.secrets_proxy().await?;
        let rotated = secrets.rotate_key(&Dict::new()).await;
        let rotated = rotated.map_err(Failure::call("rotate the key of the secrets"))?;
        Ok::<_, Failure>((
            RotatedKey::from_dict(rotated)?,
            client.secrets_status().await?,
        ))
    };
    let (rotated, status) = progress.during(rotate).await?;
    let is_sealed = status.key_state == "sealed";
    context.ui.data(
        || {
            json!({
                "key_id": rotated.key_id,
                "values": rotated.values,
                "unreadable": rotated.unreadable,
                "sealed": is_sealed,
            })
        },
        || {
            let values = match rotated.values {
                1 => "1 value has".to_owned(),
                values => format!("{values} values have"),
            };
            format!("Key rotated: {values} the new key {}\n", rotated.key_id)
        },
    )?;
    if !rotated.unreadable.is_empty() {
        let names = rotated.unreadable.join(", ");
        context.ui.note(&format!(
            "note: these could not be read and stay as they are: {names}"
        ));
    }
    if !is_sealed {
        context.ui.note(&format!(
            "note: the new key is in clear in {}: {}",
            status.key_file, status.obstacle
        ));
    }
    Ok(exit_code::OK)
}
