//! The daemon of `tests/kits/api-daemon`, which asks the API of its instance what a test
//! tells it to.

use std::cell::Cell;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::instance::{DEADLINE, Instance};
use crate::machine::User;
use crate::seat::Seat;
use crate::wait::wait_for;

/// A daemon that asks what it is told to.
#[derive(Debug)]
pub struct Daemon<'a> {
    seat: Seat<'a>,
    instance: &'a Instance<'a>,
    asked: Cell<u32>,
}

impl<'a> Daemon<'a> {
    /// The daemon of an instance of the kit `api`, or of another that has it.
    #[must_use]
    pub fn of(seat: Seat<'a>, instance: &'a Instance<'a>) -> Self {
        let asked = Cell::new(0);
        Self {
            seat,
            instance,
            asked,
        }
    }

    fn folder(&self) -> String {
        format!("{}/{}", self.seat.kits(), self.instance.handle())
    }

    /// Has the daemon begin to ask, and gives the number of the question.
    ///
    /// # Errors
    /// The machine fails.
    pub fn begin(&self, question: &Value) -> Result<u32> {
        let number = self.asked.replace(self.asked.get() + 1);
        let path = format!("{}/{number}", self.folder());
        let machine = self.seat.machine();
        machine.write_file(
            User::Root,
            &format!("{path}.tmp"),
            question.to_string().as_bytes(),
        )?;
        let line = format!("chmod 644 {path}.tmp && mv {path}.tmp {path}.ask");
        machine.run(User::Root, &line)?.success()?;
        Ok(number)
    }

    /// What it was answered.
    ///
    /// # Errors
    /// There is no answer in time.
    pub fn answer(&self, number: u32) -> Result<Value> {
        let path = format!("{}/{number}.answer", self.folder());
        let line = format!("cat {path} 2>/dev/null");
        let what = format!("the answer to question {number}");
        wait_for(DEADLINE, &what, || {
            let text = self.seat.machine().run(User::Root, &line)?.text();
            Ok(serde_json::from_str(&text).ok())
        })
    }

    /// Status and body of an answer.
    ///
    /// # Errors
    /// There is no answer in time.
    pub fn ask(&self, question: &Value) -> Result<(u64, String)> {
        let answer = self.answer(self.begin(question)?)?;
        let status = answer["status"].as_u64().context("a status")?;
        let body = answer["body"].as_str().context("a body")?;
        Ok((status, body.to_owned()))
    }

    /// Status and body of a GET.
    ///
    /// # Errors
    /// As of [`Daemon::ask`].
    pub fn get(&self, path: &str) -> Result<(u64, String)> {
        self.ask(&json!({"path": path}))
    }

    /// Status and body of a POST.
    ///
    /// # Errors
    /// As of [`Daemon::ask`].
    pub fn post(&self, path: &str, body: &str) -> Result<(u64, String)> {
        self.ask(&json!({"method": "POST", "path": path, "body": body}))
    }

    /// The JSON of a GET that succeeds.
    ///
    /// # Errors
    /// It does not, or is none.
    pub fn json(&self, path: &str) -> Result<Value> {
        let (status, body) = self.get(path)?;
        ensure!(status == 200, "{path}: {status} {body}");
        Ok(serde_json::from_str(&body)?)
    }
}
