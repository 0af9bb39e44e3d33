//! Many chats at once.

use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn two_hundred_messages_in_twenty_chats_at_once() {
    let chats: Vec<i64> = (1000..1018).chain([-2001, -2002]).collect();
    let allowed: Vec<_> = chats.iter().map(ToString::to_string).collect();
    let world = World::with(&[], json!({"allowed_chats": allowed})).await;
    world.connected().await;
    world.aegisd.echo();
    for number in 0..10 {
        for chat in &chats {
            let text = format!("@aegis_test_bot {number}");
            let entities = json!([{"type": "mention", "offset": 0, "length": 15}]);
            world
                .telegram
                .send(*chat, json!({"text": text, "entities": entities}))
                .await;
        }
    }
    world.taken(200).await;
    let wanted: Vec<_> = (0..10)
        .map(|number| format!("You said: {number}"))
        .collect();
    for chat in &chats {
        let texts = world
            .telegram
            .wait_texts(*chat, |texts| texts.len() >= 10)
            .await;
        assert_eq!(texts, wanted, "chat {chat}");
    }
    assert_eq!(
        world.telegram.violations().await,
        Vec::<serde_json::Value>::new()
    );
}
