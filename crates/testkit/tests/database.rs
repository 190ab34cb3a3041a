//! The harness itself: databases are apart, and gone afterwards.
#![allow(clippy::unwrap_used, reason = "tests")]

use sqlx::{Connection, PgConnection, Row};

#[tokio::test]
async fn a_postgres_database_is_its_own_and_goes_with_the_test() {
    let (Some(one), Some(two)) = (caracal_testkit::postgres().await, caracal_testkit::postgres().await) else { return };
    let (first, second) = (one.url().unwrap().to_owned(), two.url().unwrap().to_owned());
    assert_ne!(first, second);
    let mut connection = PgConnection::connect(&first).await.unwrap();
    sqlx::raw_sql("CREATE TABLE t (x int)").execute(&mut connection).await.unwrap();
    drop(one);
    let mut other = PgConnection::connect(&second).await.unwrap();
    let name = first.rsplit('/').next().unwrap();
    let left =
        sqlx::query("SELECT count(*) AS n FROM pg_database WHERE datname = $1").bind(name).fetch_one(&mut other).await.unwrap();
    assert_eq!(left.get::<i64, _>("n"), 0);
}

#[test]
fn redis_databases_are_apart() {
    let (Some(one), Some(two)) = (caracal_testkit::redis(), caracal_testkit::redis()) else { return };
    assert_ne!(one, two);
}
