"""usage: nb.py build SRC OUT | nb.py run SRC   (cells: '=== md' | '=== code tags=a,b' | '=== fig {json}')"""
import sys, json, re, time, os
def cells(src):
    out=[]
    for block in re.split(r"(?m)^=== ", open(src).read())[1:]:
        head, _, body = block.partition("\n"); out.append((head.strip(), body.strip("\n")))
    return out
def build(src, out):
    cs=cells(src); meta=json.loads(cs[0][1]); sys.path.insert(0,"book/tools")
    import notebooks
    import nbformat
    old={}
    if os.path.exists(out):
        for c in nbformat.read(out,4).cells:
            if c.cell_type=="code": old[c.source]=c.outputs
    nb=nbformat.v4.new_notebook(); nb.metadata={"kdlearn":meta}|json.loads(json.dumps(notebooks.KERNEL))
    for k,(head,body) in enumerate(cs[1:]):
        if head=="md": nb.cells.append(nbformat.v4.new_markdown_cell(body))
        elif head=="install":
            nb.cells.append(nbformat.v4.new_code_cell(notebooks.install_cell(),metadata=dict(notebooks.INSTALL_METADATA)))
        elif head.startswith("fig"):
            m=json.loads(head[4:]); nb.cells.append(nbformat.v4.new_code_cell(body,metadata={"mystnb":{"figure":{"caption":m["caption"],"name":m["name"]},"image":{"alt":m["alt"]}},"tags":["hide-input"]}))
        else:
            t=re.search(r"tags=(\S+)",head); nb.cells.append(nbformat.v4.new_code_cell(body,metadata={"tags":t[1].split(",")} if t else {}))
    for i,c in enumerate(nb.cells):
        c["id"]=f"cell-{i:02}"
        if c.cell_type=="code" and c.source in old: c.outputs=old[c.source]
    os.makedirs(os.path.dirname(out),exist_ok=True); nbformat.write(nb,out)
def run(src):
    g={"__name__":"__main__"}; t0=time.process_time()
    for k,(head,body) in enumerate(cells(src)[1:]):
        if head in("md","install"): continue
        import ast
        tree=ast.parse(body); last=None
        if tree.body and isinstance(tree.body[-1],ast.Expr): last=ast.Expression(tree.body.pop().value)
        t=time.process_time()
        try:
            exec(compile(tree,f"cell{k}","exec"),g)
            if last is not None:
                v=eval(compile(last,f"cell{k}","eval"),g)
                if v is not None:
                    if hasattr(v,"savefig"): v.savefig(f"/tmp/w3/lang1/fig_{os.path.basename(src)}_{k}.png",dpi=110); print("[figure]",k)
                    else: print(repr(v))
        except AssertionError as e: print("ASSERTION FAILED in cell",k,body,file=sys.stdout)
        print(f"   -- cell {k} {time.process_time()-t:.1f}s",flush=True)
    print("total",round(time.process_time()-t0,1))
{"build":lambda:build(sys.argv[2],sys.argv[3]),"run":lambda:run(sys.argv[2])}[sys.argv[1]]()
