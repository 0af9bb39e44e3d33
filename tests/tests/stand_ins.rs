//! The stand-ins for Telegram and for the providers of models speak as the services do:
//! published clients of those read what they answer.

use aegis_tests::clients;
use anyhow::{Result, ensure};

#[test]
fn clients_of_the_providers_understand_the_model() -> Result<()> {
    let said = clients::check("check_llm")?;
    ensure!(said.lines().count() > 10, "it checked only {said}");
    Ok(())
}

#[test]
fn a_client_of_telegram_understands_telegram() -> Result<()> {
    let said = clients::check("check_telegram")?;
    ensure!(said.contains("as python-telegram-bot"), "{said}");
    Ok(())
}
