"""A tutorial on data caching: products, a blog with SQLAlchemy, versions of a cache, hit rates."""

import time

from flask import Flask, jsonify, render_template_string, request
from flask_sqlalchemy import SQLAlchemy

from wsgicache.flask import Cache


def make_app(database="sqlite://", **config):
    """The tutorial's app. `app.queries` counts what reached the database."""
    app = Flask(__name__)
    app.config.update({"SQLALCHEMY_DATABASE_URI": database, "CACHE_TYPE": "SimpleCache", **config})
    db = SQLAlchemy(app)
    cache = Cache(app, config={"CACHE_DEFAULT_TIMEOUT": 300})
    app.db, app.cache, app.queries = db, cache, []

    class Product(db.Model):
        id = db.Column(db.Integer, primary_key=True)
        name = db.Column(db.String(80))
        category = db.Column(db.String(80))

    class Post(db.Model):
        id = db.Column(db.Integer, primary_key=True)
        title = db.Column(db.String(120))
        body = db.Column(db.Text)

    app.Post, app.Product = Post, Product

    # --- a view

    @app.route("/products")
    @cache.cached(timeout=60)
    def products():
        app.queries.append("products")
        return jsonify([product.name for product in Product.query.all()])

    # --- a function, by its arguments

    @cache.memoize(timeout=120)
    def products_in(category):
        app.queries.append(category)
        return [product.name for product in Product.query.filter_by(category=category)]

    @app.route("/category/<name>")
    def category(name):
        return jsonify(products_in(name))

    # --- by hand, keyed by the query

    @app.route("/search")
    def search():
        cache_key = f"search_{request.args.get('q', '')}"
        results = cache.get(cache_key)
        if results is None:
            cache.inc("cache_misses")
            app.queries.append(cache_key)
            found = Product.query.filter(Product.name.contains(request.args.get("q", "")))
            results = [product.name for product in found]
            cache.set(cache_key, results, timeout=60)
        else:
            cache.inc("cache_hits")
        return jsonify(results)

    # --- invalidation

    @app.route("/products/add", methods=["POST"])
    def add_product():
        db.session.add(Product(name=request.form["name"], category=request.form["category"]))
        db.session.commit()
        cache.delete_memoized(products_in, request.form["category"])
        cache.delete("view//products")
        return "added", 201

    # --- monitoring

    @app.route("/cache-stats")
    def cache_stats():
        hits, misses = cache.get("cache_hits") or 0, cache.get("cache_misses") or 0
        total = hits + misses
        rate = hits / total * 100 if total else 0
        return jsonify(hits=hits, misses=misses, hit_rate=f"{rate:.2f}%")

    # --- the blog

    @app.route("/blog/<int:post_id>")
    @cache.cached(timeout=300)
    def post(post_id):
        app.queries.append(f"post {post_id}")
        found = db.session.get(Post, post_id)
        return render_template_string("<h1>{{ post.title }}</h1>{{ post.body }}", post=found)

    @app.route("/blog/<int:post_id>/edit", methods=["POST"])
    def edit_post(post_id):
        db.session.get(Post, post_id).title = request.form["title"]
        db.session.commit()
        cache.delete(f"view//blog/{post_id}")
        return "saved"

    # --- a fragment that varies by user

    @app.route("/sidebar/<int:user_id>")
    def sidebar(user_id):
        user = {"id": user_id, "drawn": time.perf_counter_ns()}
        return render_template_string(
            "{% cache 60, 'sidebar', user.id %}{{ user.id }} {{ user.drawn }}{% endcache %}", user=user
        )

    def create_tables():
        db.create_all()
        db.session.add(Product(name="kettle", category="kitchen"))
        db.session.add(Post(id=1, title="first", body="text"))
        db.session.commit()

    with app.app_context():
        create_tables()
    return app
