use crate::world::{ANN, World};

#[tokio::test]
async fn a_message_goes_in_and_its_answer_comes_out() {
    let world = World::start().await;
    let id = world.telegram.write(ANN, "hello").await;
    let frames = world.taken(1).await;
    assert_eq!(frames[0]["payload"]["text"], "hello");
    assert_eq!(frames[0]["msg_id"], id.as_str());
    world.aegisd.done(ANN, &id, "**hi** there");
    let texts = world
        .telegram
        .wait_texts(ANN, |texts| !texts.is_empty())
        .await;
    assert_eq!(texts, ["hi there"]);
    assert_eq!(world.telegram.violations().await.len(), 0);
}
